"""Queries: the history, one reminder's outcomes, a mailbox's content, and erasing a user."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import datetime, timezone
from typing import Any, cast

from .connection import Connection
from .errors import BellhopError, ForbiddenError, InvalidError, NotFoundError, UnavailableError
from .names import escape
from .wire import (
    EraseAnswer,
    HistoryAnswer,
    HistoryReminder,
    MailboxAnswer,
    OutcomeName,
    WhyAnswer,
)

ANSWER_SECONDS = 22.0
"""Bellhop answers within 20 s, if only that it cannot."""
KINDS: dict[str, type[BellhopError]] = {
    "400": InvalidError,
    "403": ForbiddenError,
    "404": NotFoundError,
    "503": UnavailableError,
}


class Queries:
    """Asks Bellhop.

    ```python
    async with bellhop.Connection() as nats:
        page = await bellhop.Queries(nats).history(user="alice", limit=10)
    ```

    Each method raises `InvalidError` when the query is wrong, `ForbiddenError` when an app server
    may not ask about this user, and `UnavailableError` when Bellhop does not answer or cannot
    answer now.
    """

    def __init__(
        self,
        nats: Connection,
        *,
        prefix: str = "bellhop",
        instance: str | None = None,
        timeout: float = ANSWER_SECONDS,
    ) -> None:
        """Prepares queries over a connection.

        Args:
            nats: The connection. It must be open when a method is called.
            prefix: The prefix of the installation's names.
            instance: The app server that asks, about users alone who have a route there.
            timeout: The most seconds that an answer takes.
        """
        self._nats = nats
        self._api = f"{prefix}.api" + (f".of.{escape(instance)}" if instance else "")
        self._timeout = timeout

    async def history(
        self,
        *,
        user: str | None = None,
        source: str | None = None,
        id: str | None = None,
        tag: str | None = None,
        outcome: OutcomeName | None = None,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        contains: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> HistoryAnswer:
        """Returns a page of the history. Filters combine.

        The reminder that was published last comes first.

        Args:
            user: For whom they were published.
            source: The business system.
            id: The id within the source.
            tag: One of the tags.
            outcome: The latest outcome.
            since: Published then or later.
            until: Published before that.
            contains: A part of the title or the content, without regard to case.
            limit: The most reminders of the page, 1 to 1,000; 100 if it is missing.
            cursor: The `cursor` of the page before, with the same filters.
        """
        query = {
            "user": user,
            "source": source,
            "id": id,
            "tag": tag,
            "outcome": outcome,
            "from": since,
            "to": until,
            "contains": contains,
            "limit": limit,
            "cursor": cursor,
        }
        return cast(HistoryAnswer, await self._ask("history", query))

    async def all_history(self, **filters: Any) -> AsyncIterator[HistoryReminder]:
        """Yields all reminders that the filters of `history` let through, page by page."""
        while True:
            page = await self.history(**filters)
            for reminder in page["reminders"]:
                yield reminder
            if not page.get("cursor"):
                return
            filters["cursor"] = page["cursor"]

    async def why(self, source: str, id: str, *, user: str | None = None) -> WhyAnswer:
        """Returns a reminder and all its outcomes, the oldest first.

        Args:
            source: The business system.
            id: The id within the source.
            user: Whose reminder; without it the one that was published last under this id.

        Raises:
            NotFoundError: Bellhop knows of no such reminder.
        """
        return cast(WhyAnswer, await self._ask("why", {"source": source, "id": id, "user": user}))

    async def mailbox(self, user: str, *, limit: int | None = None) -> MailboxAnswer:
        """Returns what waits for a user: how many, since when, and the first of them.

        Args:
            user: The user.
            limit: The most reminders of the answer, 1 to 1,000; 100 if it is missing.
        """
        return cast(MailboxAnswer, await self._ask("mailbox", {"user": user, "limit": limit}))

    async def erase(self, user: str) -> EraseAnswer:
        """Removes a user from the history, the mailboxes, the routes and the lists of associates.

        Returns how many of each were removed.
        """
        return cast(EraseAnswer, await self._ask("erase", {"user": user}))

    async def _ask(self, verb: str, query: dict[str, Any]) -> Any:
        given = {name: _plain(value) for name, value in query.items() if value is not None}
        try:
            body = json.dumps(given).encode()
        except (TypeError, ValueError) as error:
            raise InvalidError(f"{verb}: {error}") from error
        answer = await self._nats.request(f"{self._api}.{verb}", body, timeout=self._timeout)
        headers = answer.headers or {}
        if code := headers.get("Nats-Service-Error-Code"):
            problem = headers.get("Nats-Service-Error", code)
            raise KINDS.get(code, UnavailableError)(f"{verb}: {problem}")
        return json.loads(answer.data)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise InvalidError(f"{value} has no time zone; give it one")
        return value.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return value
