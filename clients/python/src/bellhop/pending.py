"""Requests without an answer, and reminders without a decision. Pure: it reads no clock.

A reminder can wait longer than the request that brought it, and a second request can bring it
again. So a reminder stays with the request that brought it first, its owner, and later requests
follow: the decision goes to all of them.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Container, Iterable, Sequence, Set
from itertools import chain
from operator import itemgetter
from typing import Any, Final, Literal

import msgspec

from .wire import DeliveredReminder, Refused

Reason = Literal["busy", "not_connected"]
Key = tuple[Any, ...]

ACCEPTED: Final = ""
"""The decision to accept. The others are the reasons."""
ACCEPTS_ALL = b"{}"
QUEUED, TAKEN, DECIDED, SKIPPED = range(4)
"""The states of a reminder: in the queue, with the application, decided, and never in the queue."""

_decode = msgspec.json.Decoder().decode
_key = itemgetter("source", "id", "user", "published_at")
_texts = itemgetter("source", "id", "user", "content")


class UnreadableError(Exception):
    """What came is no delivery."""


class Request:
    """A delivery: its reminders, and the decisions about them."""

    __slots__ = (
        "cursor",
        "deadline",
        "followers",
        "inbox",
        "is_answered",
        "keys",
        "reminders",
        "states",
        "undecided",
        "verdicts",
    )

    def __init__(
        self, inbox: str, deadline: float, reminders: list[DeliveredReminder], keys: list[Key]
    ) -> None:
        self.inbox = inbox
        self.deadline = deadline
        self.reminders = reminders
        self.keys = keys
        self.states = bytearray(len(keys))  # all are QUEUED
        self.cursor = 0
        self.verdicts: list[str | None] = [None] * len(keys)
        self.undecided = len(keys)
        self.is_answered = False
        # Later requests that wait for the decision about a reminder, by its place here.
        self.followers: dict[int, list[tuple[Request, int]]] = {}

    def accepted(self) -> list[Key]:
        """Returns what the application has accepted so far of the reminders that are here first."""
        if self.verdicts.count(ACCEPTED) == self.states.count(DECIDED) == len(self.keys):
            return self.keys
        return [
            key
            for key, verdict, state in zip(self.keys, self.verdicts, self.states, strict=True)
            if verdict == ACCEPTED and state == DECIDED
        ]

    def answer(self) -> bytes:
        """Returns the answer.

        All that follows a refused reminder of the same user is refused, too: accepted now, it would
        be out of order.
        """
        if self.verdicts.count(ACCEPTED) == len(self.verdicts):
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
        self,
        capacity: int,
        remember: int,
        remember_for: float,
        clock: Callable[[], float],
        send: Callable[[str, bytes], object],
    ) -> None:
        """Prepares it. `send` is called with each answer and its inbox."""
        self._capacity = max(capacity, 1)
        self._remember = remember
        self._remember_for = remember_for
        self._clock = clock
        self._send = send
        self._requests: deque[Request] = deque()
        self._open = 0
        self._undecided: dict[Key, Request] = {}
        self._queue: deque[Request] = deque()
        self._queued = 0
        self._accepted: set[Key] = set()
        self._accepted_at: deque[tuple[float, Sequence[Key]]] = deque()
        self._numbers = 0

    def request(self, inbox: str, body: bytes, deadline: float, connected: Set[str]) -> bool:
        """Takes a request in. Returns whether there are reminders for the application.

        A reminder without room is refused at once, and so are the same user's later ones, so that
        they stay in order.

        Raises:
            UnreadableError: It is not a delivery. Then it gets no answer.
        """
        try:
            reminders = _decode(body)["reminders"]
            if not isinstance(reminders, list):
                raise TypeError("`reminders` is no list")
            keys: list[Key] = list(map(_key, reminders))
            "".join(chain.from_iterable(map(_texts, reminders)))  # Fails unless all are texts.
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            raise UnreadableError(f"{type(error).__name__}: {error}") from error
        self._numbers += 1
        if self._remember <= 0:
            keys = [(*key, self._numbers, place) for place, key in enumerate(keys)]
        self._forget(self._clock())
        request = Request(inbox, deadline, reminders, keys)
        self._requests.append(request)
        self._open += 1
        if self._is_simple(keys, connected):
            self._undecided.update(dict.fromkeys(keys, request))
            self._queued += len(keys)
        else:
            self._sort(request, connected)
        if not request.undecided:
            self._answer(request)
            return False
        self._queue.append(request)
        return True

    def _is_simple(self, keys: list[Key], connected: Set[str]) -> bool:
        """Returns whether all reminders are new, have room, and are for connected users."""
        distinct = {*keys}
        return (
            len(distinct) == len(keys)
            and self._room() >= len(keys)
            and self._accepted.isdisjoint(keys)
            and self._undecided.keys().isdisjoint(distinct)
            and {key[2] for key in keys} <= connected
        )

    def _sort(self, request: Request, connected: Set[str]) -> None:
        """Decides what can be decided at once."""
        refused_before: dict[str, str] = {}
        for place, key in enumerate(request.keys):
            verdict = refused_before.get(key[2])
            if verdict is None:
                verdict = self._ask(request, place, connected)
            if verdict is not None:
                request.states[place] = SKIPPED
                request.verdicts[place] = verdict
                request.undecided -= 1
                if verdict != ACCEPTED:
                    refused_before[key[2]] = verdict

    def _ask(self, request: Request, place: int, connected: Set[str]) -> str | None:
        """Returns the decision about a reminder. Without one, the application decides."""
        key = request.keys[place]
        if key in self._accepted:
            return ACCEPTED
        if owner := self._undecided.get(key):
            request.states[place] = SKIPPED  # The owner hands it over.
            at = owner.keys.index(key)
            owner.followers.setdefault(at, []).append((request, place))
            return None
        if key[2] not in connected:
            return "not_connected"
        if self._room() < 1:
            return "busy"
        self._undecided[key] = request
        self._queued += 1
        return None

    def _room(self) -> int:
        # What the application has taken counts, and so does what was taken back and still is in
        # the queue.
        return self._capacity - max(len(self._undecided), self._queued)

    def take(self) -> tuple[Request, int] | None:
        """Returns the next reminder for the application, if there is one: a request and a place."""
        queue = self._queue
        while queue:
            request = queue[0]
            place = request.cursor
            if place == len(request.keys):
                queue.popleft()
                continue
            request.cursor = place + 1
            self._queued -= request.states[place] != SKIPPED
            if request.states[place] == QUEUED:
                request.states[place] = TAKEN
                return request, place
        return None

    def take_batch(self) -> tuple[Request, Sequence[int]] | None:
        """Returns the next request, or what is left of it, and its places for the application."""
        while self._queue:
            request = self._queue.popleft()
            start, end, states = request.cursor, len(request.keys), request.states
            request.cursor = end
            self._queued -= end - start - states.count(SKIPPED, start)
            places: Sequence[int] = range(start, end)
            if states.count(QUEUED, start) != end - start:
                places = [place for place in places if states[place] == QUEUED]
            for place in places:
                states[place] = TAKEN
            if places:
                return request, places
        return None

    def decide(self, request: Request, place: int, verdict: str) -> None:
        """Takes the application's decision about a reminder. A second one counts for nothing."""
        if request.states[place] == TAKEN:
            if verdict == ACCEPTED and self._remember > 0:
                self._accepted.add(request.keys[place])
                if request.is_answered:
                    self._accepted_at.append((self._clock(), (request.keys[place],)))
            self._settle(request, place, verdict)

    def decide_all(self, request: Request, places: Sequence[int], verdict: str) -> None:
        """Takes the application's decision about several reminders of a request."""
        count = len(places)
        is_plain = not request.followers and not request.is_answered and verdict == ACCEPTED
        if not is_plain or count != len(request.keys) or request.states.count(TAKEN) != count:
            for place in places:
                self.decide(request, place, verdict)
            return
        if self._remember > 0:
            self._accepted.update(request.keys)
        for key in request.keys:
            del self._undecided[key]
        request.states[:] = bytes((DECIDED,)) * count
        request.verdicts = [ACCEPTED] * count
        request.undecided = 0
        self._answer(request)

    def disconnected(self, users: Container[str]) -> None:
        """Refuses what is in the queue for users who have left."""
        self._take_back(lambda key: key[2] in users, "not_connected")

    def refuse_queue(self) -> None:
        """Refuses what is in the queue as busy, since no application takes it any more."""
        self._take_back(lambda key: True, "busy")

    def next_deadline(self) -> float | None:
        """Returns when `expire` has something to do."""
        return self._requests[0].deadline if self._requests else None

    def expire(self, now: float) -> None:
        """Answers the requests whose deadline has passed.

        Their undecided reminders are refused for now. What the application has stays with it.
        """
        while (deadline := self.next_deadline()) is not None and deadline <= now:
            request = self._requests[0]
            self._answer(request)
            for place, key in enumerate(request.keys):
                is_wanted = any(not one.is_answered for one, _ in request.followers.get(place, ()))
                if request.states[place] == QUEUED and not is_wanted:
                    request.states[place] = DECIDED
                    del self._undecided[key]
                elif request.states[place] == SKIPPED and (owner := self._undecided.get(key)):
                    self._drop_unwanted(owner, owner.keys.index(key))

    def _drop_unwanted(self, owner: Request, place: int) -> None:
        """Takes a reminder back that is in the queue, and that no request waits for any more."""
        followers = owner.followers.get(place, ())
        is_wanted = not owner.is_answered or any(not one.is_answered for one, _ in followers)
        if owner.states[place] == QUEUED and not is_wanted:
            owner.states[place] = DECIDED
            del self._undecided[owner.keys[place]]

    @property
    def is_idle(self) -> bool:
        """Whether no request waits for an answer."""
        return not self._open

    def _take_back(self, is_theirs: Callable[[Key], bool], reason: Reason) -> None:
        for request in [*self._queue]:
            for place in range(request.cursor, len(request.keys)):
                if request.states[place] == QUEUED and is_theirs(request.keys[place]):
                    self._settle(request, place, reason)

    def _settle(self, request: Request, place: int, verdict: str) -> None:
        request.states[place] = DECIDED
        del self._undecided[request.keys[place]]
        self._conclude(request, place, verdict)
        for follower, there in request.followers.pop(place, ()):
            self._conclude(follower, there, verdict)

    def _conclude(self, request: Request, place: int, verdict: str) -> None:
        if request.is_answered:
            return
        request.verdicts[place] = verdict
        request.undecided -= 1
        if verdict != ACCEPTED:
            self._take_back_behind(request, place, verdict)
        if not request.undecided and not request.is_answered:
            self._answer(request)

    def _take_back_behind(self, request: Request, place: int, reason: str) -> None:
        """Refuses what is behind a refused reminder of the same user and still in the queue."""
        user = request.keys[place][2]
        for behind in range(place + 1, len(request.keys)):
            key = request.keys[behind]
            if key[2] == user and request.verdicts[behind] is None:
                owner = self._undecided.get(key)
                if owner:
                    at = behind if owner is request else owner.keys.index(key)
                    if owner.states[at] == QUEUED:
                        self._settle(owner, at, reason)

    def _answer(self, request: Request) -> None:
        request.is_answered = True
        self._open -= 1
        while self._requests and self._requests[0].is_answered:
            self._requests.popleft()
        if self._remember > 0 and (accepted := request.accepted()):
            self._accepted_at.append((self._clock(), accepted))
        self._send(request.inbox, request.answer())

    def _forget(self, now: float) -> None:
        """Forgets accepted reminders that are too old or too many."""
        while self._accepted_at:
            at, keys = self._accepted_at[0]
            if len(self._accepted) - len(keys) < self._remember and at > now - self._remember_for:
                break
            self._accepted.difference_update(keys)
            self._accepted_at.popleft()


def is_taken(request: Request, places: Iterable[int]) -> bool:
    """Returns whether the application has one of these reminders and has not decided about it."""
    return any(request.states[place] == TAKEN for place in places)
