#!/usr/bin/env python3
"""Writes src/bellhop/wire.py from docs/asyncapi.json; with `--check` only compares them."""

import json
import re
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
TARGET = ROOT / "clients/python/src/bellhop/wire.py"
WANTED = [
    "Priority", "Reason", "Field", "MarkAction", "OutcomeName", "Mark", "MergedReminder",
    "DeliveredReminder", "Repeat", "PublishedReminder", "Refused", "NamedReminder", "Step",
    "KnownReminder", "HistoryReminder", "HistoryAnswer", "WhyAnswer", "MailboxAnswer", "Erased",
    "EraseAnswer",
]  # fmt: skip
HEAD = '''"""The bodies of Bellhop's protocol.

Generated from docs/asyncapi.json by tools/generate.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    from typing_extensions import NotRequired

'''
KEYWORDS = {"for", "from"}


def resolve(schemas, schema):
    """Returns the Python type of a schema."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return name if name in WANTED else resolve(schemas, schemas[name])
    if "allOf" in schema:
        return resolve(schemas, schema["allOf"][0])
    if "enum" in schema:
        return f"Literal[{', '.join(json.dumps(value) for value in schema['enum'])}]"
    for several in ("anyOf", "oneOf"):
        if several in schema:
            if all("const" in one for one in schema[several]):
                return f"Literal[{', '.join(json.dumps(one['const']) for one in schema[several])}]"
            return " | ".join(resolve(schemas, one) for one in schema[several])
    kinds = schema.get("type", "any")
    names = {"string": "str", "integer": "int", "boolean": "bool", "null": "None", "any": "Any"}
    names["array"] = (
        f"list[{resolve(schemas, schema['items'])}]" if "items" in schema else "list[Any]"
    )
    return " | ".join(names[kind] for kind in ([kinds] if isinstance(kinds, str) else kinds))


def comment(text, indent=""):
    """Returns a text as a docstring: its first sentence, and the rest as a paragraph."""
    first, *rest = re.split(r"(?<=\.) ", " ".join(text.split()).replace("\\", "\\\\"), maxsplit=1)
    more = "".join(f"\n{indent}{line}" for line in textwrap.wrap(" ".join(rest), 96 - len(indent)))
    first = f"\n{indent}".join(textwrap.wrap(first, 92 - len(indent)))
    return f'{indent}"""{first}"""' if not more else f'{indent}"""{first}\n{more}\n{indent}"""'


def fields(schemas, name):
    """Returns the fields of an object with their schemas, and which of them are required."""
    schema = schemas[name]
    own, required = dict(schema.get("properties", {})), {*schema.get("required", [])}
    names = [one["allOf"][0]["$ref"].rsplit("/", 1)[1] for one in schema.get("anyOf", [])]
    variants = [fields(schemas, name) for name in names]
    for inner, _ in variants:
        own = inner | own
    if variants:
        required |= set.intersection(*(needed for _, needed in variants))
    return own, required


def define(schemas, name):
    schema = schemas[name]
    if "properties" not in schema and "anyOf" not in schema:
        return f"{name} = {resolve(schemas, schema)}\n{comment(schema['description'])}\n"
    own, required = fields(schemas, name)
    base, text = "TypedDict", ""
    if odd := {field: own.pop(field) for field in KEYWORDS & own.keys()}:
        base = f"_{name}"
        body = "".join(f'    "{field}": "{resolve(schemas, its)}",\n' for field, its in odd.items())
        types = f"{{{body.strip().rstrip(',')}}}"
        text = f'{base} = TypedDict(\n    "{base}",\n    {types},\n    total=False,\n)\n\n\n'
    text += f"class {name}({base}):\n{comment(schema['description'], '    ')}\n"
    for field, its in own.items():
        kind = resolve(schemas, its)
        if field not in required:
            kind = f"NotRequired[{kind}]"
        text += f"\n    {field}: {kind}"
        if "description" in its:
            text += f"\n{comment(its['description'], '    ')}"
    return f"{text}\n"


def main():
    schemas = json.loads((ROOT / "docs/asyncapi.json").read_text())["components"]["schemas"]
    text = HEAD + "\n\n".join(define(schemas, name) for name in WANTED)
    if "--check" in sys.argv:
        is_same = TARGET.read_text() == text
        return 0 if is_same else f"{TARGET} is out of date: run tools/generate.py"
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
