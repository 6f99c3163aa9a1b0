"""Requests without an answer, and reminders without a decision. Pure: it reads no clock.

A reminder can wait longer than the request that brought it, and a second request can bring it
again. So a reminder stays with the request that brought it first, its owner, and later requests
follow: the decision goes to all of them.

Nearly all requests are plain: all their reminders are new, for connected users, and accepted in
time. So little is done for a single reminder, and the rest for a plain request as a whole. Until
then all of it counts as undecided.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Container, Iterator, Sequence, Set
from math import inf
from operator import itemgetter, length_hint
from typing import Any, Final, Literal, TypeVar

import msgspec

from .wire import DeliveredReminder, Refused

Made = TypeVar("Made")
Reason = Literal["busy", "not_connected"]

ACCEPTED: Final = ""
"""The decision to accept. The others are the reasons."""
ACCEPTS_ALL = b"{}"
QUEUED, TAKEN, KEPT, REFUSED, FOLLOWS = range(5)
"""The states of a reminder in a request: in the queue, with the application, accepted, refused, and
undecided by its owner."""

_decode = msgspec.json.Decoder().decode
_identity = itemgetter("source", "id", "user", "published_at")
_content = itemgetter("content")
_user = itemgetter("user")
_as_key = "\n".join  # Names and ids have no control characters.


class UnreadableError(Exception):
    """What came is no delivery."""


class Request:
    """A delivery: its reminders, and the decisions about them."""

    __slots__ = (
        "deadline",
        "followers",
        "follows",
        "inbox",
        "is_answered",
        "is_plain",
        "keys",
        "places",
        "queued",
        "reasons",
        "reminders",
        "states",
        "undecided",
    )

    def __init__(
        self, inbox: str, deadline: float, reminders: list[DeliveredReminder], keys: list[str]
    ) -> None:
        self.inbox = inbox
        self.deadline = deadline
        self.reminders = reminders
        self.keys = keys
        self.states = bytearray(len(keys))  # all are QUEUED
        # The reminders that this request owns: the places of those in the queue, how many were put
        # there, and how many have no decision.
        self.places: Iterator[int] = iter(range(len(keys)))
        self.queued = self.undecided = len(keys)
        # How many reminders wait for the decision of another owner.
        self.follows = 0
        # Whether all its reminders were queued, no other request follows, all decisions so far
        # accept, and there is no answer.
        self.is_plain = True
        self.is_answered = False
        self.reasons: dict[int, Reason] = {}
        # Later requests that wait for the decision about a reminder, by its place here.
        self.followers: dict[int, list[tuple[Request, int]]] = {}

    def answer(self) -> bytes:
        """Returns the answer.

        All that follows a refused reminder of the same user is refused, too: accepted now, it would
        be out of order.
        """
        refused_before: dict[str, Reason] = {}
        refused: list[Refused] = []
        for place, (reminder, state) in enumerate(zip(self.reminders, self.states, strict=True)):
            user = reminder["user"]
            reason = refused_before.get(user)
            if reason is None and state != KEPT:
                reason = self.reasons.get(place, "busy")
            if reason is not None:
                refused_before[user] = reason
                source, id = reminder["source"], reminder["id"]
                refused.append({"id": id, "source": source, "user": user, "reason": reason})
        return json.dumps({"refused": refused}).encode() if refused else ACCEPTS_ALL

    def release(self) -> None:
        """Drops the contents when it is over, since what is remembered refers to it."""
        self.reminders, self.keys = [], []


class Pending:
    """All requests and reminders of an app server that are not settled."""

    def __init__(
        self,
        capacity: int,
        remember: int,
        remember_for: float,
        answer_within: float,
        send: Callable[[str, bytes], object],
    ) -> None:
        """Prepares it. `send` is called with each answer and its inbox."""
        self._capacity = max(capacity, 1)
        self._answer_within = answer_within
        self._remember = remember
        self._remember_for = remember_for
        self._send = send
        self._requests: deque[Request] = deque()
        self._unsettled: set[Request] = set()  # those with undecided reminders
        self._undecided = 0
        self._queue: deque[Request] = deque()
        self._queued = 0
        # The owners of reminders that are undecided or were accepted. There are two generations,
        # and the older one is forgotten as a whole.
        self._young: dict[str, Request] = {}
        self._old: dict[str, Request] = {}
        self._turns_at = -inf
        self._numbers = 0

    def request(self, inbox: str, body: bytes, now: float, connected: Set[str]) -> bool:
        """Takes a request in that came now. Returns whether it has reminders for the application.

        A reminder without room is refused at once, and so are the same user's later ones, so that
        they stay in order.

        Raises:
            UnreadableError: It is not a delivery. Then it gets no answer.
        """
        try:
            reminders = _decode(body)["reminders"]
            if not isinstance(reminders, list):
                raise TypeError("`reminders` is no list")
            keys = list(map(_as_key, map(_identity, reminders)))
            "".join(map(_content, reminders))  # Fails unless all are texts, as the line before.
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            raise UnreadableError(f"{type(error).__name__}: {error}") from error
        if now >= self._turns_at or len(self._young) > self._remember > 0:
            self._forget(now)
        if self._remember <= 0:
            self._numbers += 1
            self._young.clear()  # No key comes twice.
            keys = [f"{key}\n{self._numbers}\n{place}" for place, key in enumerate(keys)]
        request = Request(inbox, now + self._answer_within, reminders, keys)
        self._requests.append(request)
        owned = dict.fromkeys(keys, request)
        if (
            len(owned) == len(keys) <= self._room()
            and self._young.keys().isdisjoint(keys)
            and self._old.keys().isdisjoint(keys)
            and connected >= {*map(_user, reminders)}
        ):
            self._young.update(owned)
        else:
            self._sort(request, connected)
        if request.queued:
            self._unsettled.add(request)
            self._undecided += request.queued
            self._queued += request.queued
            self._queue.append(request)
        self._answer_if_decided(request)
        return request.queued > 0

    def _sort(self, request: Request, connected: Set[str]) -> None:
        """Decides what can be decided at once, and leaves the rest in the queue."""
        request.is_plain = False
        refused_before: dict[str, Reason] = {}
        queued: list[int] = []
        room = self._room()
        for place, (key, reminder) in enumerate(zip(request.keys, request.reminders, strict=True)):
            user = reminder["user"]
            reason = refused_before.get(user)
            if reason is None:
                if owner := self._owner(key):
                    self._follow(request, place, owner)
                    continue
                if user not in connected:
                    reason = "not_connected"
                elif len(queued) == room:
                    reason = "busy"
            if reason is None:
                queued.append(place)
                self._young[key] = request
            else:
                request.states[place] = REFUSED
                request.reasons[place] = refused_before[user] = reason
        request.places = iter(queued)
        request.queued = request.undecided = len(queued)

    def _follow(self, request: Request, place: int, owner: Request) -> None:
        """Gives a reminder the decision of its owner, now or later."""
        at = owner.keys.index(request.keys[place]) if owner is request or owner.undecided else -1
        if at < 0 or owner.states[at] == KEPT:
            request.states[place] = KEPT
            return
        request.states[place] = FOLLOWS
        request.follows += 1
        self._count_exactly(owner)
        owner.followers.setdefault(at, []).append((request, place))

    def _owner(self, key: str) -> Request | None:
        """Returns the request of a reminder that is undecided or was accepted."""
        return self._young.get(key) or self._old.get(key)

    def _room(self) -> int:
        # What the application has taken counts, and so does what was taken back and still is in
        # the queue. It may have taken the last reminder of a request, and not asked for the next.
        if self._queue and not length_hint(self._queue[0].places):
            self._used_up(self._queue[0])
        return self._capacity - max(self._undecided, self._queued)

    def _used_up(self, request: Request) -> None:
        """Removes a request from the queue, unless that was done."""
        if self._queue and self._queue[0] is request:
            self._queue.popleft()
            self._queued -= request.queued

    def _count_exactly(self, request: Request) -> None:
        """Ends a plain request: from here on each of its reminders counts alone."""
        if request.is_plain:
            request.is_plain = False
            self._undecided -= request.queued - request.undecided

    def taken(self, make: Callable[[Pending, Request, int], Made]) -> Iterator[Made]:
        """Takes the reminders in the queue for the application, one by one, until it is empty.

        What it makes of each gets this, a request and a place.
        """
        while self._queue:
            request = self._queue[0]
            states = request.states
            for place in request.places:
                if states[place] == QUEUED:
                    states[place] = TAKEN
                    yield make(self, request, place)
            self._used_up(request)

    def take_batch(self) -> tuple[Request, Sequence[int]] | None:
        """Returns the next request, or what is left of it, and its places for the application."""
        while self._queue:
            request = self._queue[0]
            states, places = request.states, [*request.places]
            self._used_up(request)
            if not request.is_plain:
                places = [place for place in places if states[place] == QUEUED]
            for place in places:
                states[place] = TAKEN
            if places:
                return request, places
        return None

    def accept(self, request: Request, place: int) -> None:
        """Takes the decision to accept a reminder. A second decision counts for nothing."""
        if request.is_plain and request.states[place] == TAKEN:
            request.states[place] = KEPT
            request.undecided -= 1
            if not request.undecided:
                self._settle_plain(request)
        else:
            self.decide(request, place, ACCEPTED)

    def accept_all(self, request: Request, places: Sequence[int]) -> None:
        """Takes the decision to accept several reminders of a request."""
        count = len(places)
        if request.is_plain and request.states.count(TAKEN) == count == request.queued:
            request.states[:] = bytes((KEPT,)) * count
            self._settle_plain(request)
        else:
            for place in places:
                self.accept(request, place)

    def _settle_plain(self, request: Request) -> None:
        request.undecided = 0
        self._undecided -= request.queued
        self._unsettled.discard(request)
        self._answer(request, ACCEPTS_ALL)

    def decide(self, request: Request, place: int, verdict: str) -> None:
        """Takes the application's decision about a reminder. A second one counts for nothing."""
        if request.states[place] == TAKEN:
            self._settle(request, place, verdict)

    def disconnected(self, users: Container[str]) -> None:
        """Refuses what is in the queue for users who have left."""
        self._take_back(lambda user: user in users, "not_connected")

    def refuse_queue(self) -> None:
        """Refuses what is in the queue as busy, since no application takes it any more."""
        self._take_back(lambda user: True, "busy")

    def next_deadline(self) -> float | None:
        """Returns when `expire` has something to do."""
        return self._requests[0].deadline if self._requests else None

    def expire(self, now: float) -> None:
        """Answers the requests whose deadline has passed.

        Their undecided reminders are refused for now. What the application has stays with it.
        """
        while (deadline := self.next_deadline()) is not None and deadline <= now:
            request = self._requests[0]
            self._count_exactly(request)
            places = [*zip(range(len(request.keys)), request.keys, request.states, strict=True)]
            self._answer(request, request.answer())
            for place, key, state in places:
                if state == QUEUED:
                    self._drop_unwanted(request, place)
                elif state == FOLLOWS and (owner := self._owner(key)):
                    self._drop_unwanted(owner, owner.keys.index(key))

    def _drop_unwanted(self, owner: Request, place: int) -> None:
        """Takes a reminder back that is in the queue, and that no request waits for any more."""
        followers = owner.followers.get(place, ())
        is_wanted = not owner.is_answered or any(not one.is_answered for one, _ in followers)
        if owner.states[place] == QUEUED and not is_wanted:
            self._settle(owner, place, "busy")

    @property
    def is_idle(self) -> bool:
        """Whether no request waits for an answer."""
        return not self._requests

    def _take_back(self, is_theirs: Callable[[str], bool], reason: Reason) -> None:
        for request in [*self._queue]:
            for place, reminder in enumerate(request.reminders):
                if request.states[place] == QUEUED and is_theirs(reminder["user"]):
                    self._settle(request, place, reason)

    def _settle(self, request: Request, place: int, verdict: str) -> None:
        """Decides about a reminder for the request that owns it and for those that follow."""
        self._count_exactly(request)
        request.undecided -= 1
        self._undecided -= 1
        if verdict != ACCEPTED:  # It is new when it comes again.
            for owners in (self._young, self._old):
                owners.pop(request.keys[place], None)
        if not request.undecided:
            self._unsettled.discard(request)
            if request.is_answered:
                request.release()
        self._conclude(request, place, verdict)
        for follower, there in request.followers.pop(place, ()):
            follower.follows -= 1
            self._conclude(follower, there, verdict)

    def _conclude(self, request: Request, place: int, verdict: Any) -> None:
        request.states[place] = KEPT if verdict == ACCEPTED else REFUSED
        if request.is_answered:
            return
        if verdict != ACCEPTED:
            request.reasons[place] = verdict
            self._take_back_behind(request, place, verdict)
        self._answer_if_decided(request)

    def _take_back_behind(self, request: Request, place: int, reason: Reason) -> None:
        """Refuses what is behind a refused reminder of the same user and still in the queue."""
        user = request.reminders[place]["user"]
        for behind in range(place + 1, len(request.keys)):
            state = request.states[behind]
            if state in (QUEUED, FOLLOWS) and request.reminders[behind]["user"] == user:
                key = request.keys[behind]
                owner = request if state == QUEUED else self._owner(key)
                if owner:
                    at = behind if owner is request else owner.keys.index(key)
                    if owner.states[at] == QUEUED:
                        self._settle(owner, at, reason)

    def _answer_if_decided(self, request: Request) -> None:
        if not (request.undecided or request.follows or request.is_answered):
            self._answer(request, request.answer())

    def _answer(self, request: Request, body: bytes) -> None:
        request.is_answered = True
        while self._requests and self._requests[0].is_answered:
            self._requests.popleft()
        if not request.undecided:
            request.release()
        self._send(request.inbox, body)

    def _forget(self, now: float) -> None:
        """Forgets the older generation of owners, since the younger one is full or old enough."""
        is_late = now >= self._turns_at + self._remember_for
        self._old, self._young = ({} if is_late else self._young), {}
        self._turns_at = now + self._remember_for
        for request in self._unsettled:
            for key, state in zip(request.keys, request.states, strict=True):
                if state in (QUEUED, TAKEN):
                    self._young[key] = request
