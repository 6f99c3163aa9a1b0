"""The errors of this package.

Each has a `kind`, which stays the same across versions and languages.
"""

from typing import ClassVar, Literal

__all__ = [
    "BellhopError",
    "ClosedError",
    "ForbiddenError",
    "InvalidError",
    "Kind",
    "LateError",
    "NotFoundError",
    "UnavailableError",
    "UnconfirmedError",
]

Kind = Literal["invalid", "unconfirmed", "late", "forbidden", "not_found", "unavailable", "closed"]


class BellhopError(Exception):
    """The base of all errors of this package."""

    kind: ClassVar[Kind]


class InvalidError(BellhopError):
    """The request is wrong: Bellhop would refuse it, or has refused it. Nothing was stored."""

    kind = "invalid"

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        """The code of Bellhop's protocol, such as `invalid_user`, for a reminder or a name."""


class UnconfirmedError(BellhopError):
    """JetStream did not acknowledge a set in time.

    It may be stored: publish it again under its ids.
    """

    kind = "unconfirmed"


class LateError(BellhopError):
    """JetStream did not confirm all routes in time. The app server goes on trying."""

    kind = "late"


class ForbiddenError(BellhopError):
    """The query is about a user who has no route at the app server that asks."""

    kind = "forbidden"


class NotFoundError(BellhopError):
    """Bellhop knows of no such reminder."""

    kind = "not_found"


class UnavailableError(BellhopError):
    """NATS or Bellhop does not answer now. Try again later."""

    kind = "unavailable"


class ClosedError(BellhopError):
    """The app server, publisher or connection has stopped. Start another one."""

    kind = "closed"
