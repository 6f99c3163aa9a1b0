"""Names, and what is made of them: subjects and keys."""

import re

from .errors import InvalidError

MAX_NAME_BYTES = 128
MAX_ID_BYTES = 256
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_ESCAPED = re.compile(rb"[^A-Za-z0-9_-]")


def escape(name: str) -> str:
    """Returns a name as one token of a subject or a key."""
    return _ESCAPED.sub(lambda byte: b"=%02X" % byte[0][0], name.encode()).decode()


def check(what: str, text: object, limit: int = MAX_NAME_BYTES) -> str:
    """Returns the text.

    Raises:
        InvalidError: It is not 1 to `limit` bytes of text without control characters.
    """
    if not isinstance(text, str) or not 0 < size(text) <= limit or CONTROL.search(text):
        problem = (
            f"{what} {text!r:.80} is not 1 to {limit} bytes of text without control characters"
        )
        raise InvalidError(problem, f"invalid_{what}")
    return text


def size(text: str) -> int:
    """Returns the number of bytes of a text in UTF-8.

    Raises:
        InvalidError: It has half of a surrogate pair.
    """
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidError(
            f"{text!r:.80} has half of a surrogate pair", "invalid_reminder"
        ) from error
