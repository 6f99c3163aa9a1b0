"""Requests without an answer, and reminders without a decision. Pure: it reads no clock.

A reminder can wait longer than the request that brought it, and a second request can bring it
again. So a reminder knows the requests that wait for it, and its decision goes to all of them.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Container, Iterable, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, Final, Literal

from .wire import DeliveredReminder, Refused

Reason = Literal["busy", "not_connected"]
Key = tuple[Any, ...]

ACCEPTED: Final = ""
"""The decision to accept. The others are the reasons."""
ACCEPTS_ALL = b"{}"

_key = itemgetter("source", "id", "user")
_texts = itemgetter("source", "id", "user", "content")

QUEUED, TAKEN, DECIDED = range(3)


class UnreadableError(Exception):
    """What came is no delivery."""


class Entry:
    """A reminder without a decision: in the queue, or with the application."""

    __slots__ = ("asked_by", "key", "reminder", "state")

    def __init__(self, key: Key, reminder: DeliveredReminder, request: Request, place: int) -> None:
        self.key = key
        self.reminder = reminder
        self.asked_by = [(request, place)]
        self.state = QUEUED


class Request:
    """A delivery that waits for its answer."""

    __slots__ = ("deadline", "inbox", "is_answered", "keys", "undecided", "verdicts")

    def __init__(self, inbox: str, deadline: float, keys: Sequence[Key]) -> None:
        self.inbox = inbox
        self.deadline = deadline
        self.keys = keys
        self.verdicts: list[str | None] = [None] * len(keys)
        self.undecided = len(keys)
        self.is_answered = False

    def answer(self) -> bytes:
        """Returns the answer.

        All that follows a refused reminder of the same user is refused, too: accepted now, it would
        be out of order.
        """
        if not any(verdict != ACCEPTED for verdict in self.verdicts):
            return ACCEPTS_ALL
        refused_before: dict[str, str] = {}
        refused: list[Refused] = []
        for (source, id_, user, *_), verdict in zip(self.keys, self.verdicts, strict=True):
            reason: Any = refused_before.get(user, "busy" if verdict is None else verdict)
            if reason != ACCEPTED:
                refused_before[user] = reason
                refused.append({"id": id_, "source": source, "user": user, "reason": reason})
        return json.dumps({"refused": refused}).encode()


class Pending:
    """All requests and reminders of an app server that are not settled."""

    def __init__(
        self, capacity: int, remember: int, remember_for: float, clock: Callable[[], float]
    ) -> None:
        self._capacity = max(capacity, 1)
        self._remember = remember
        self._remember_for = remember_for
        self._clock = clock
        self._requests: deque[Request] = deque()
        self._undecided: dict[Key, Entry] = {}
        self._accepted: dict[Key, float] = {}
        self._numbers = 0
        self._open = 0
        self.queue: deque[Entry] = deque()
        self.answers: list[tuple[str, bytes]] = []

    def request(self, inbox: str, body: bytes, deadline: float, connected: Container[str]) -> None:
        """Takes a request in.

        A reminder without room is refused at once, and so are the same user's later ones, so that
        they stay in order.

        Raises:
            UnreadableError: It is not a delivery. Then it gets no answer.
        """
        try:
            reminders: list[DeliveredReminder] = json.loads(body)["reminders"]
            texts = map(type, chain.from_iterable(map(_texts, reminders)))
            if not isinstance(reminders, list) or not {*texts} <= {str}:
                raise TypeError("a field of a reminder is no text")
            keys: list[Key] = list(map(_key, reminders))
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            raise UnreadableError(f"{type(error).__name__}: {error}") from error
        self._numbers += 1
        if self._remember <= 0:
            keys = [(*key, self._numbers, place) for place, key in enumerate(keys)]
        self._forget(self._clock())
        request = Request(inbox, deadline, keys)
        self._requests.append(request)
        self._open += 1
        if self._is_simple(keys, connected):
            entries = [
                Entry(key, reminder, request, place)
                for place, (key, reminder) in enumerate(zip(keys, reminders, strict=True))
            ]
            self._undecided.update(zip(keys, entries, strict=True))
            self.queue.extend(entries)
        else:
            self._sort(request, reminders, connected)
        if not request.undecided:
            self._answer(request)

    def _is_simple(self, keys: list[Key], connected: Container[str]) -> bool:
        """Returns whether every reminder is new, has room, and is for a user who is connected."""
        distinct = {*keys}
        return (
            len(distinct) == len(keys)
            and self._room() >= len(keys)
            and distinct.isdisjoint(self._accepted)
            and distinct.isdisjoint(self._undecided)
            and all(user in connected for user in {key[2] for key in keys})
        )

    def _sort(
        self, request: Request, reminders: list[DeliveredReminder], connected: Container[str]
    ) -> None:
        refused_before: dict[str, str] = {}
        for place, (key, reminder) in enumerate(zip(request.keys, reminders, strict=True)):
            user = reminder["user"]
            verdict: str | None = refused_before.get(user)
            if verdict is None:
                verdict = self._ask(key, reminder, request, place, connected)
            if verdict is not None:
                request.verdicts[place] = verdict
                request.undecided -= 1
                if verdict != ACCEPTED:
                    refused_before[user] = verdict

    def _ask(
        self,
        key: Key,
        reminder: DeliveredReminder,
        request: Request,
        place: int,
        connected: Container[str],
    ) -> str | None:
        """Returns the decision about a reminder, if there is one at once.

        Otherwise the application decides.
        """
        if key in self._accepted:
            return ACCEPTED
        if entry := self._undecided.get(key):
            entry.asked_by.append((request, place))
            return None
        if reminder["user"] not in connected:
            return "not_connected"
        if self._room() < 1:
            return "busy"
        entry = Entry(key, reminder, request, place)
        self._undecided[key] = entry
        self.queue.append(entry)
        return None

    def _room(self) -> int:
        # What the application has taken counts, and so does what was taken back and still is in the
        # queue.
        return self._capacity - max(len(self._undecided), len(self.queue))

    def take(self) -> Entry | None:
        """Returns the next reminder for the application, if there is one."""
        while self.queue:
            entry = self.queue.popleft()
            if entry.state == QUEUED:
                entry.state = TAKEN
                return entry
        return None

    def take_batch(self) -> list[Entry]:
        """Returns the reminders of the next request, or what is left of it.

        The list is empty if there are none.
        """
        first = self.take()
        if not first:
            return []
        entries, request = [first], first.asked_by[0][0] if first.asked_by else None
        while self.queue and self.queue[0].asked_by and self.queue[0].asked_by[0][0] is request:
            entry = self.queue.popleft()
            if entry.state == QUEUED:
                entry.state = TAKEN
                entries.append(entry)
        return entries

    def decide(self, entries: Iterable[Entry], verdict: str) -> None:
        """Takes the application's decision about reminders.

        A second decision about one counts for nothing.
        """
        now = self._clock()
        for entry in entries:
            if entry.state == TAKEN:
                if verdict == ACCEPTED and self._remember > 0:
                    self._accepted[entry.key] = now
                self._settle(entry, verdict)

    def disconnected(self, users: Container[str]) -> None:
        """Refuses what is in the queue for users who have left."""
        theirs = [entry for entry in self.queue if entry.reminder["user"] in users]
        self._take_back(theirs, "not_connected")

    def refuse_queue(self) -> None:
        """Refuses what is in the queue as busy, since no application takes it any more."""
        self._take_back([*self.queue], "busy")
        self.queue.clear()

    def next_deadline(self) -> float | None:
        """Returns when `expire` has something to do."""
        while self._requests and self._requests[0].is_answered:
            self._requests.popleft()
        return self._requests[0].deadline if self._requests else None

    def expire(self, now: float) -> None:
        """Answers the requests whose deadline has passed.

        Their undecided reminders are refused for now.
        """
        while (deadline := self.next_deadline()) is not None and deadline <= now:
            request = self._requests.popleft()
            for key, verdict in zip(request.keys, request.verdicts, strict=True):
                entry = self._undecided.get(key) if verdict is None else None
                if not entry:
                    continue
                entry.asked_by = [asked for asked in entry.asked_by if asked[0] is not request]
                if not entry.asked_by and entry.state == QUEUED:
                    entry.state = DECIDED
                    del self._undecided[key]
            self._answer(request)

    @property
    def is_idle(self) -> bool:
        """Whether no request waits for an answer."""
        return not self._open

    def _take_back(self, entries: Iterable[Entry], reason: Reason) -> None:
        for entry in entries:
            if entry.state == QUEUED:
                self._settle(entry, reason)

    def _settle(self, entry: Entry, verdict: str) -> None:
        entry.state = DECIDED
        self._undecided.pop(entry.key, None)
        for request, place in entry.asked_by:
            if request.is_answered:
                continue
            request.verdicts[place] = verdict
            request.undecided -= 1
            if verdict != ACCEPTED:
                self._take_back_behind(
                    request, place, "busy" if verdict == "busy" else "not_connected"
                )
            if not request.undecided and not request.is_answered:
                self._answer(request)

    def _take_back_behind(self, request: Request, place: int, reason: Reason) -> None:
        user = request.keys[place][2]
        behind = [
            self._undecided[key]
            for key, verdict in zip(
                request.keys[place + 1 :], request.verdicts[place + 1 :], strict=True
            )
            if verdict is None and key[2] == user and key in self._undecided
        ]
        self._take_back(behind, reason)

    def _answer(self, request: Request) -> None:
        request.is_answered = True
        self._open -= 1
        self.answers.append((request.inbox, request.answer()))

    def _forget(self, now: float) -> None:
        """Forgets accepted reminders that are too old or too many."""
        accepted = self._accepted
        for key in iter(lambda: next(iter(accepted), None), None):
            if len(accepted) <= self._remember and accepted[key] > now - self._remember_for:
                break
            del accepted[key]
