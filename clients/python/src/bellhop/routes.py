"""Writes routes by publishing to the bucket's stream, which needs no right to read the bucket."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Generator
from datetime import datetime, timezone
from typing import Any

from .connection import Connection
from .errors import BellhopError, ClosedError, LateError, UnavailableError
from .names import escape
from .table import Delete, Put, Table

logger = logging.getLogger("bellhop")

PATIENCE = 2.0
"""How many seconds JetStream may take to confirm a route."""
RETRY_AFTER = 0.5
"""The pause before a failed write is tried again, in seconds."""
WRONG_LAST_SEQUENCE = {10071, 10164}
"""JetStream's codes where the key was written since. A server of a cluster may answer either."""
CHECKED = "bellhop check of routes"
"""The name of no user, whose deleted key is there for as long as the bucket is the same one."""
DELETED = {"KV-Operation": "DEL", "Nats-TTL": "1h"}


class Routed:
    """A change of routes. Await it to know when JetStream has confirmed it.

    It takes effect at once, also if it is not awaited.

    Awaiting raises `LateError` when not all routes are confirmed in time, and `ClosedError` when
    the app server has stopped. After `LateError` the app server goes on trying.
    """

    def __init__(self, count: int, patience: float) -> None:
        self._left = count
        self._patience = patience
        self._problem = "JetStream has not answered"
        self._done = asyncio.get_running_loop().create_future()
        if not count:
            self._done.set_result(None)

    def when_done(self, call: Callable[[Routed], object]) -> None:
        """Calls when JetStream has confirmed everything, or the app server has stopped."""
        self._done.add_done_callback(lambda _: call(self))

    def __await__(self) -> Generator[Any, None, None]:
        return self._wait().__await__()

    async def _wait(self) -> None:
        try:
            await asyncio.wait_for(asyncio.shield(self._done), self._patience)
        except asyncio.TimeoutError:
            text = f"not all routes are confirmed after {self._patience:g} s: {self._problem}"
            raise LateError(f"{text}; still trying") from None

    def written(self) -> None:
        """Counts one of the users."""
        self._left -= 1
        if not self._left and not self._done.done():
            self._done.set_result(None)

    def failed(self, problem: str) -> None:
        """Remembers why a user's route is not written yet."""
        self._problem = problem

    def stopped(self) -> None:
        """Ends the waiting, since nothing is written any more."""
        if not self._done.done():
            self._done.set_exception(ClosedError("the app server has stopped; start another one"))
            self._done.exception()  # It is no error if the caller does not wait.


class Writer:
    """Makes the bucket what the table says."""

    def __init__(
        self, connection: Connection, table: Table, bucket: str, instance: str, subject: str | None
    ) -> None:
        self._connection = connection
        self._table = table
        self._keys = f"$KV.{bucket}."
        self._instance = escape(instance)
        self._subject = subject
        self._due = asyncio.Event()
        self._checked: int | None = None

    def wake(self) -> None:
        """Is called when the table has changed."""
        self._due.set()

    async def run(self, at_once: int) -> None:
        """Writes what is due, so many routes at a time."""
        idle = asyncio.Semaphore(at_once)
        writes: set[asyncio.Task[None]] = set()
        try:
            while True:
                await self._due.wait()
                self._due.clear()
                while change := self._table.next_change():
                    await idle.acquire()
                    write = asyncio.create_task(self._write(change))
                    writes.add(write)
                    write.add_done_callback(writes.discard)
                    write.add_done_callback(lambda _: idle.release())
        finally:
            for write in writes:
                write.cancel()

    async def check(self, every: float) -> None:
        """Puts all routes again when the bucket was deleted and created again.

        An app server may not be allowed to read the bucket. So it writes a key of its own, on the
        condition that what it wrote last is still there.
        """
        while True:
            try:
                await self._check()
            except BellhopError as error:
                logger.debug("cannot check the bucket of routes: %s", error)
            await asyncio.sleep(every)

    async def _check(self) -> None:
        last = {"Nats-Expected-Last-Subject-Sequence": str(self._checked)} if self._checked else {}
        self._checked = await self._publish(CHECKED, b"", DELETED | last)
        if self._checked is None:
            logger.warning("the bucket of routes is a new one, putting all routes again")
            self._table.put_all_again()
            self.wake()
            self._checked = await self._publish(CHECKED, b"", DELETED)

    async def _write(self, change: Put | Delete) -> None:
        try:
            if isinstance(change, Put):
                revision = await self._publish(change.user, self._value(), {})
            else:
                expected = {"Nats-Expected-Last-Subject-Sequence": str(change.revision)}
                await self._publish(
                    change.user, b"", DELETED | (expected if change.revision else {})
                )
                revision = None
        except BellhopError as error:
            self._table.failed(change.user, str(error))
            asyncio.get_running_loop().call_later(RETRY_AFTER, self._retry)
        else:
            self._table.written(change.user, revision)
            self.wake()

    def _retry(self) -> None:
        self._table.retry()
        self.wake()

    def _value(self) -> bytes:
        if not self._subject:
            return b""
        since = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        return json.dumps({"subject": self._subject, "since": since}).encode()

    async def _publish(self, user: str, body: bytes, headers: dict[str, str]) -> int | None:
        """Returns the revision of the user's key; None if it is not the one that was expected."""
        key = f"{self._keys}{escape(user)}.{self._instance}"
        answer = await self._connection.request(key, body, timeout=PATIENCE, headers=headers)
        return acknowledged(key, answer.data)


def acknowledged(subject: str, answer: bytes) -> int | None:
    """Returns the sequence in JetStream's answer; None if it was not the one that was expected.

    Raises:
        UnavailableError: JetStream has not stored the message.
    """
    try:
        ack = json.loads(answer)
        if "error" not in ack:
            return int(ack["seq"])
        if ack["error"].get("err_code") in WRONG_LAST_SEQUENCE:
            return None
        problem = ack["error"].get("description", ack["error"])
    except (ValueError, TypeError, LookupError, AttributeError):
        problem = f"{answer[:80]!r} is no acknowledgement of JetStream"
    raise UnavailableError(f"{subject}: {problem}")
