"""The publisher: reminders go out in sets, until JetStream has stored them.

Order matters for one user at a time. So reminders are divided among lanes by their users, and each
lane has one set under way: one that is retried cannot be overtaken. What queues meanwhile makes the
lane's next set: nothing waits for a set to fill, and sets grow with load.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import random
import secrets
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from types import TracebackType
from typing import Any
from zlib import crc32

from .connection import Connection, Servers
from .errors import BellhopError, ClosedError, InvalidError, UnavailableError, UnconfirmedError
from .names import MAX_ID_BYTES, check, escape, size
from .routes import acknowledged
from .wire import Priority, PublishedReminder, Repeat

logger = logging.getLogger("bellhop")

MAX_REMINDERS = 10_000
"""The most reminders of one set, and the most cancelled ones."""
MAX_TITLE_BYTES, MAX_CONTENT_BYTES, MAX_TAGS = 1 << 10, 64 << 10, 16
MAX_RECURRING_ID_BYTES = 235
"""Bellhop puts the moment behind it, within the bound of all ids."""
CRON_FIELDS = 5
MAX_REMINDER_BYTES = 256 << 10
"""A reminder must fit into one delivery."""
FRAME_BYTES = 4 << 10
"""What the protocol leaves of the server's `max_payload` for headers and other fields of a set."""
ACK_PATIENCE = 2.0
"""How many seconds JetStream may take to acknowledge a set before it is published again."""
PAUSES = (0.05, 1.0)
"""The first and the longest pause before that, in seconds."""
PRIORITIES = ("low", "normal", "high", "urgent")

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class Receipt:
    """Confirms that JetStream has stored a reminder. From then on Bellhop is responsible for it."""

    id: str
    """The reminder's id: the given one, or the generated one."""
    set: int
    """The sequence of its set in the stream of sets. Outcomes and deliveries name the set by it."""


class Publishing:
    """A reminder on its way. Await it to get its `Receipt`.

    If it is dropped, the reminder still goes out.

    Awaiting raises `UnconfirmedError` when JetStream did not acknowledge the set in time.
    """

    __slots__ = ("_stored", "id")

    def __init__(self, id: str) -> None:
        self.id = id
        """The reminder's id: the given one, or the generated one."""
        self._stored: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def __await__(self) -> Generator[Any, None, Receipt]:
        return self._wait().__await__()

    async def _wait(self) -> Receipt:
        return Receipt(self.id, await asyncio.shield(self._stored))

    def _settle(self, result: int | UnconfirmedError) -> None:
        if isinstance(result, int):
            self._stored.set_result(result)
        else:
            self._stored.set_exception(result)
            self._stored.exception()  # It is no error if the caller does not wait; it is logged.


@dataclass(frozen=True, slots=True)
class _Waiting:
    body: bytes
    publishing: Publishing


class Publisher:
    """Publishes reminders of one source.

    ```python
    async with bellhop.Publisher("billing") as billing:
        await billing.publish("alice", "Invoice 981 is due on Friday", id="inv-981")
    ```
    """

    def __init__(
        self,
        source: str,
        nats: Connection | Servers = None,
        *,
        prefix: str = "bellhop",
        max_reminders: int = MAX_REMINDERS,
        max_bytes: int = 512 << 10,
        max_waiting_bytes: int = 8 << 20,
        lanes: int = 4,
        give_up_after: float = 60.0,
    ) -> None:
        """Prepares a publisher; `start` starts it.

        Args:
            source: The name of the business system. It is the last part of the subject.
            nats: A connection, or the servers to connect to. See `Connection`.
            prefix: The prefix of the installation's names.
            max_reminders: The most reminders of one set. The protocol's limit is 10,000.
            max_bytes: The most bytes of one set. A single larger reminder makes a set of its own.
            max_waiting_bytes: The most bytes of reminders without an acknowledgement. `enqueue`
                waits for room.
            lanes: The most sets under way at a time. A user's reminders are always in the same
                lane.
            give_up_after: How many seconds a set is retried. It must be well below Bellhop's
                `idempotency.window` of 10 minutes.

        Raises:
            InvalidError: No source can have this name.
        """
        self.source = check("source", source)
        """The name of the business system."""
        self._owns = not isinstance(nats, Connection)
        self._connection = nats if isinstance(nats, Connection) else Connection(nats, name=source)
        self._subject = f"{prefix}.sets.{escape(source)}"
        self._max_reminders = min(max(max_reminders, 1), MAX_REMINDERS)
        self._max_bytes = max_bytes
        self._max_waiting_bytes = max_waiting_bytes
        self._give_up_after = give_up_after
        self._lanes: list[deque[_Waiting]] = [deque() for _ in range(max(lanes, 1))]
        self._workers: dict[int, asyncio.Task[None]] = {}
        self._waiting_bytes = 0
        self._freed = asyncio.Event()
        # Callers pass it in their order. A cancellation holds it until it is stored.
        self._gate = asyncio.Lock()
        self._is_closed = False

    async def start(self) -> None:
        """Connects to NATS.

        Raises:
            UnavailableError: NATS cannot be reached.
        """
        await self._connection.open()

    async def close(self) -> None:
        """Waits until JetStream has answered for everything that was taken, and stops."""
        self._is_closed = True
        await self.flush()
        if self._owns:
            await self._connection.close()

    async def __aenter__(self) -> Publisher:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def publish(
        self,
        user: str,
        content: str,
        *,
        id: str | None = None,
        title: str | None = None,
        tags: Iterable[str] = (),
        priority: Priority = "normal",
        deliver_at: datetime | str | None = None,
        repeat: Repeat | None = None,
        expires_at: datetime | str | None = None,
        reroute: bool = True,
        merge: bool = True,
        data: Any = None,
    ) -> Receipt:
        """Publishes a reminder, and returns when JetStream has stored it.

        Args:
            user: The user to deliver it to.
            content: The text, 1 byte to 64 KiB.
            id: Unique within the source, 1 to 256 bytes; generated if it is missing. Publish again
                under the same id after a failure: within `idempotency.window` (10 minutes) it is
                the same reminder.
            title: A short headline, up to 1 KiB.
            tags: Topics, up to 16. They select the rules.
            priority: The urgency.
            deliver_at: The earliest delivery: a time with a zone, or text as in RFC 3339.
            repeat: When it repeats: `{"cron": "55 8 * * MON-FRI", "zone": "Asia/Shanghai"}`. Each
                occurrence is a reminder of its own. Give it an id of at most 235 bytes, to replace
                or cancel it later.
            expires_at: The latest delivery.
            reroute: Whether the user's associates may receive it while the user is away.
            merge: Whether it may become one with reminders of the same user and text.
            data: Any JSON for the app server, `None` for none. The whole reminder must fit into 256
                KiB.

        Raises:
            InvalidError: Bellhop would refuse it. Nothing was sent.
            UnconfirmedError: JetStream did not acknowledge it in time. It may be stored.
            ClosedError: The publisher was closed.
        """
        publishing = await self.enqueue(
            user,
            content,
            id=id,
            title=title,
            tags=tags,
            priority=priority,
            deliver_at=deliver_at,
            repeat=repeat,
            expires_at=expires_at,
            reroute=reroute,
            merge=merge,
            data=data,
        )
        return await publishing

    async def enqueue(
        self,
        user: str,
        content: str,
        *,
        id: str | None = None,
        title: str | None = None,
        tags: Iterable[str] = (),
        priority: Priority = "normal",
        deliver_at: datetime | str | None = None,
        repeat: Repeat | None = None,
        expires_at: datetime | str | None = None,
        reroute: bool = True,
        merge: bool = True,
        data: Any = None,
    ) -> Publishing:
        """Takes a reminder when there is room, and returns before it is stored.

        A user's reminders go out in the order in which this call returns. Reminders that wait at
        the same time go out as one set. The arguments and errors are those of `publish`.
        """
        id = secrets.token_hex(11) if id is None else id
        reminder = _reminder(user, content, id, title, tags, priority, reroute)
        for name, time in ("deliver_at", deliver_at), ("expires_at", expires_at):
            if time is not None:
                reminder[name] = _time(name, time)  # type: ignore[literal-required]
        if repeat is not None:
            reminder["repeat"] = _checked(repeat, id)
        if not merge:
            reminder["merge"] = False
        if data is not None:
            reminder["data"] = data
        waiting = _Waiting(_encoded(reminder), Publishing(id))
        async with self._gate:
            while (
                self._waiting_bytes
                and self._waiting_bytes + len(waiting.body) > self._max_waiting_bytes
            ):
                await self._wait_for_room()
            if self._is_closed:
                raise ClosedError("the publisher was closed; start another one")
            self._waiting_bytes += len(waiting.body)
            number = crc32(user.encode()) % len(self._lanes)
            self._lanes[number].append(waiting)
            if number not in self._workers:
                self._workers[number] = asyncio.create_task(self._work(number))
        return waiting.publishing

    async def cancel(self, *ids: str, user: str | None = None) -> None:
        """Cancels scheduled and recurring reminders, and returns when JetStream has stored that.

        The outcome of each is `cancelled`. One that is due already, or was never scheduled, is left
        alone, and there is no outcome. It goes out in order with what is published: after what was
        taken before, and before what is taken later. So a reminder that is published later under
        the same id is not cancelled.

        Args:
            ids: The ids of the reminders.
            user: Whose reminders; without it those of all users are cancelled.

        Raises:
            InvalidError: No reminder can have such an id, or no user such a name.
            UnconfirmedError: JetStream did not acknowledge it in time. It may be stored.
            ClosedError: The publisher was closed.
        """
        for id in ids:
            try:
                check("id", id, MAX_ID_BYTES)
            except InvalidError as error:
                raise InvalidError(str(error), "invalid_cancel") from None
        entries: Sequence[str | dict[str, str]] = ids
        if user is not None:
            check("user", user)
            entries = [{"id": id, "user": user} for id in ids]
        async with self._gate:
            await self._idle()
            if self._is_closed:
                raise ClosedError("the publisher was closed; start another one")
            for start in range(0, len(entries), MAX_REMINDERS):
                body = _encode({"cancel": entries[start : start + MAX_REMINDERS]}).encode()
                # Cancelling the same reminder again is another set, though its text is the same.
                await self._store(secrets.token_hex(16), body)

    async def flush(self) -> None:
        """Waits until JetStream has answered for everything that was taken before.

        Each `Publishing` has its own result.
        """
        async with self._gate:
            await self._idle()

    async def _idle(self) -> None:
        while self._waiting_bytes:
            await self._wait_for_room()

    async def _wait_for_room(self) -> None:
        self._freed.clear()
        await self._freed.wait()

    async def _work(self, number: int) -> None:
        lane = self._lanes[number]
        while lane:
            entries = self._fill(lane)
            body = b'{"reminders":[' + b",".join(entry.body for entry in entries) + b"]}"
            result: int | UnconfirmedError
            try:
                # The id is made of the text, so that a set that is published again after a restart
                # is the same set.
                result = await self._store(hashlib.blake2b(body, digest_size=16).hexdigest(), body)
            except UnconfirmedError as error:
                logger.error("a set of %d reminders is not published: %s", len(entries), error)
                result = error
            for entry in entries:
                entry.publishing._settle(result)
                self._waiting_bytes -= len(entry.body)
            self._freed.set()
        del self._workers[number]

    def _fill(self, lane: deque[_Waiting]) -> list[_Waiting]:
        """Returns what makes the next set: what waits, as far as it fits."""
        room = min(self._max_bytes, self._connection.max_payload - FRAME_BYTES) - len(lane[0].body)
        entries = [lane.popleft()]
        while lane and len(entries) < self._max_reminders and len(lane[0].body) < room:
            room -= len(lane[0].body) + 1
            entries.append(lane.popleft())
        return entries

    async def _store(self, message_id: str, body: bytes) -> int:
        """Publishes a set until it is stored. Its message id makes all attempts one set."""
        headers = {"Nats-Msg-Id": f"{escape(self.source)}-{message_id}"}
        loop = asyncio.get_running_loop()
        give_up, (pause, longest) = loop.time() + self._give_up_after, PAUSES
        while True:
            left = give_up - loop.time()
            try:
                answer = await self._connection.request(
                    self._subject, body, timeout=max(min(ACK_PATIENCE, left), 0.1), headers=headers
                )
                sequence = acknowledged(self._subject, answer.data)
                if sequence is not None:
                    return sequence
                problem: BellhopError = UnavailableError(f"{self._subject}: the set was refused")
            except BellhopError as error:
                problem = error
            if loop.time() + pause >= give_up or isinstance(problem, ClosedError):
                text = f"not acknowledged within {self._give_up_after:g} s: {problem}"
                raise UnconfirmedError(
                    f"{text}; it may be stored, so publish it again under its id"
                )
            logger.warning("a set is not acknowledged, publishing it again: %s", problem)
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))
            pause = min(pause * 2, longest)


def _reminder(
    user: str,
    content: str,
    id: str,
    title: str | None,
    tags: Iterable[str],
    priority: Priority,
    reroute: bool,
) -> PublishedReminder:
    if not isinstance(content, str) or not 0 < size(content) <= MAX_CONTENT_BYTES:
        raise InvalidError("content is not 1 byte to 64 KiB of text", "invalid_content")
    reminder: PublishedReminder = {
        "id": check("id", id, MAX_ID_BYTES),
        "user": check("user", user),
        "content": content,
    }
    if title is not None:
        if not isinstance(title, str) or size(title) > MAX_TITLE_BYTES:
            raise InvalidError("title is longer than 1 KiB", "invalid_title")
        reminder["title"] = title
    if tags := [check("tag", tag) for tag in tags]:
        if len(tags) > MAX_TAGS:
            raise InvalidError(f"{len(tags)} tags are more than {MAX_TAGS}", "too_many_tags")
        reminder["tags"] = tags
    if priority not in PRIORITIES:
        problem = f"priority {priority!r} is none of {', '.join(PRIORITIES)}"
        raise InvalidError(problem, "invalid_priority")
    if priority != "normal":
        reminder["priority"] = priority
    if not reroute:
        reminder["reroute"] = False
    return reminder


def _checked(repeat: Repeat, id: str) -> Repeat:
    # Bellhop reads the pattern itself: there is one reader of it, so that all agree.
    if not isinstance(repeat, dict) or len(str(repeat.get("cron", "")).split()) != CRON_FIELDS:
        problem = f"repeat {repeat!r:.80} has no `cron` of {CRON_FIELDS} fields"
        raise InvalidError(problem, "invalid_repeat")
    if size(id) > MAX_RECURRING_ID_BYTES:
        problem = f"the id of a recurring reminder has more than {MAX_RECURRING_ID_BYTES} bytes"
        raise InvalidError(problem, "invalid_repeat")
    return repeat


def _time(name: str, time: datetime | str) -> str:
    if isinstance(time, str):
        return time  # Bellhop reads it: RFC 3339 has more forms than Python's parser knows.
    if time.tzinfo is None:
        raise InvalidError(f"{name} {time} has no time zone; give it one", f"invalid_{name}")
    return time.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _encoded(reminder: PublishedReminder) -> bytes:
    try:
        body = _encode(reminder).encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidError(
            f"data is no JSON that Bellhop delivers: {error}", "invalid_data"
        ) from error
    if len(body) > MAX_REMINDER_BYTES:
        raise InvalidError(f"{len(body)} bytes are more than 256 KiB", "reminder_too_large")
    return body
