#!/usr/bin/env python3
"""What other people's libraries make of Bellhop's formats: SDKs of CloudEvents, and validators of JSON Schema.

    pip install --require-hashes --no-deps -r tests/formats/requirements.txt
    npm ci --prefix tests/formats
    cargo build && python3 tests/formats/formats.py [-k NAME]...

Worlds, waiting and what holds in every scenario are the contract test's.
"""
from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/contract"))

from cloudevents.core.bindings import http  # noqa: E402
from cloudevents.core.formats.json import JSONFormat  # noqa: E402
from cloudevents.core.v1.event import CloudEvent  # noqa: E402
from jsonschema import Draft202012Validator  # noqa: E402

import contract  # noqa: E402
from contract import expect, same  # noqa: E402


def node(script, those):
    """Runs a script in Node with one JSON a line, and returns what it prints, in the same way."""
    lines = "".join(f"{json.dumps(one)}\n" for one in those)
    command = ["node", str(ROOT / "tests/formats" / script)]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=60)
    expect(done.returncode == 0, f"{script} failed: {done.stderr[-500:]}")
    return [json.loads(line) for line in done.stdout.splitlines()]


# ----------------------------------------------------------------------------------- messages, as each SDK has them
def of_python(event):
    attributes = {name: value for name, value in event.items() if name != "data"}
    event = CloudEvent(attributes={"datacontenttype": "application/json"} | attributes, data=event["data"])
    binary, structured = http.to_binary(event, JSONFormat()), http.to_structured(event, JSONFormat())
    return {"binary": (binary.headers, binary.body), "structured": (structured.headers, structured.body)}


def of_javascript(event):
    [said] = node("events.mjs", [event])
    return {mode: (message["headers"], message["body"].encode()) for mode, message in said.items()}


def of_go(event):
    """As protocol/nats and protocol/nats_jetstream of github.com/cloudevents/sdk-go write it (v2.16.2 and main of June
    2026, from their sources; the SDK itself is not run). A structured message has no header. In a binary one each
    attribute is a header `ce-NAME`, its value as `fmt.Sprint` prints it."""
    attributes = {"datacontenttype": "application/json"} | {k: v for k, v in event.items() if k != "data"}
    binary = {f"ce-{name}": value for name, value in attributes.items()}
    data = json.dumps(event["data"]).encode()
    whole = json.dumps(attributes | {"data": event["data"]}).encode()
    return {"binary": (binary, data), "structured": ({}, whole)}


SDKS = {"Go": of_go, "JavaScript": of_javascript, "Python": of_python}


async def show(w, contents):
    """Waits until all of these contents, and nothing else, have been delivered to alice, each once."""
    shown = lambda: [take.reminder["content"] for takes in w.takes.values() for take in takes]
    await w.gone(lambda: [content for content in contents if content not in shown()], "not delivered")
    same(sorted(shown()), sorted(contents), "what was delivered")
    w.sent |= {(source, id): True for source, id, _ in w.takes}  # Each is to have an outcome.


# ------------------------------------------------------------------------------------------------------- scenarios
async def sdks_of_cloud_events(w):
    """A message on the same subject may be a CloudEvent 1.0, in either mode …, percent-encoded or as it is."""
    await w.app("app-1", "alice")
    contents = []
    for sdk, messages in SDKS.items():
        for number, (source, id) in enumerate([("/billing", "981"), ("/invoices/May%202026", "50% of 100 €")]):
            for mode in ("binary", "structured"):
                content = f"{sdk} {mode} {number} 目录"
                event = {"specversion": "1.0", "type": "com.example.due", "source": f"{source}/{sdk}/{mode}", "id": id}
                headers, body = messages(event | {"data": {"user": "alice", "content": content}})[mode]
                await w.publish("billing", body, headers)
                await w.publish("billing", body, headers)  # An event that comes again is a repeat.
                # Without the header of the media type, which people forget.
                bare = {name: value for name, value in headers.items() if name.lower() != "content-type"}
                await w.publish("billing", body, bare)
                contents.append(content)
    await show(w, contents)
    same(w.rejected, [], "what was refused")


async def two_events_are_two(w):
    """Two events with different `ce-id`s, or `ce-source`s, have different names, encoded or not."""
    await w.app("app-1", "alice")
    ids = ["50%", "50%25", "50%2525", "a b", "a%20b", '"a b"', "é", "%C3%A9", "%c3%a9", "%2F", "/", "%", "%%", "100%FF"]
    sources = ["/a%20b", "/a%2520b", "/é", "/%C3%A9"]
    both = [("/billing", id) for id in ids] + [(source, "1") for source in sources]
    for source, id in both:
        event = {"specversion": "1.0", "type": "t", "source": source, "id": id}
        headers, body = of_go(event | {"data": {"user": "alice", "content": f"{source} {id}"}})["binary"]
        await w.publish("billing", body, headers)
    await show(w, [f"{source} {id}" for source, id in both])


async def what_lacks_is_named(w):
    """An event that is none is refused with `invalid_cloud_event`."""
    event = {"specversion": "1.0", "type": "t", "source": "/billing", "id": "1", "data": {"user": "a", "content": "c"}}
    count = 0
    for name in ("specversion", "type", "source", "id"):
        for sdk, messages in SDKS.items():
            for mode, (headers, body) in messages(event).items():
                if mode == "binary":
                    headers, lacking = {k: v for k, v in headers.items() if k != f"ce-{name}"}, f"ce-{name}"
                else:
                    body = json.loads(body)
                    lacking = body.pop(name) and name
                await w.publish("billing", body, headers)
                count += 1
                await w.until(lambda: len(w.rejected) == count, f"{sdk}'s {mode} event without {name} is refused")
                headers = w.rejected[-1].headers
                expect(lacking in headers["Bellhop-Error-Detail"], f"{sdk}, {mode}, {name}: {headers}")


def schemas(program):
    """Every body's schema, and its examples on the protocol page."""
    run = lambda *arguments: json.loads(subprocess.check_output([program, "schema", *arguments], text=True))
    page = (ROOT / "docs/protocol.md").read_text()
    examples = re.findall(r"^```json ([a-z-]+)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    for name in (one["name"] for one in run("--json")):
        if name != "asyncapi":
            yield name, run(name), [json.loads(text) for which, text in examples if which == name]


async def schemas_in_ajv(w):
    """A JSON Schema of every body: Ajv compiles it in its strict mode, and takes the page's examples."""
    names, *rest = zip(*schemas(w.program))
    found = node("schemas.mjs", [{"schema": schema, "examples": examples} for schema, examples in zip(*rest)])
    same({name: problems for name, problems in zip(names, found) if problems}, {}, "what Ajv says")
    return f"{len(names)} schemas"


async def schemas_in_python(w):
    """A JSON Schema of every body: Python's jsonschema takes it, and the page's examples."""
    for name, schema, examples in schemas(w.program):
        Draft202012Validator.check_schema(schema)
        checker = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
        for example in examples:
            same([error.message for error in checker.iter_errors(example)], [], f"an example of {name}")


if __name__ == "__main__":
    sys.exit(contract.main(globals()))
