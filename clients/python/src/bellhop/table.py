"""Who is connected, and which routes have to be put or deleted for that. Pure.

There is one write at a time for each user. Changes in the meantime make one more write, so the
latest state wins, and a user who connects and disconnects often costs no more.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Protocol


class Waiter(Protocol):
    """Is informed about a change of a route."""

    def written(self) -> None:
        """The change is written."""

    def failed(self, problem: str) -> None:
        """The change could not be written yet."""


class State(Enum):
    """Whether a user's route is what it should be."""

    WRITTEN = auto()
    DUE = auto()
    UNDER_WAY = auto()
    OUTDATED = auto()
    """The write under way is out of date."""


@dataclass(slots=True)
class _Entry:
    terminals: int = 0
    revision: int | None = None
    in_doubt: bool = False
    """Whether a put has begun that nothing has confirmed. It may be stored, also later."""
    state: State = State.WRITTEN
    waiting: list[Waiter] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Put:
    """Puts the user's route."""

    user: str


@dataclass(frozen=True, slots=True)
class Delete:
    """Deletes the user's route, unless it has another revision than this one.

    Without a revision, in any case.
    """

    user: str
    revision: int | None


class Table:
    """The users, and the writes that are due."""

    def __init__(self) -> None:
        self.connected: set[str] = set()
        """The users who are connected. For reading only."""
        self._users: dict[str, _Entry] = {}
        self._due: deque[str] = deque()
        self._failed: list[str] = []
        self._unsettled = 0

    def connect(self, user: str, waiter: Waiter) -> None:
        """Adds a terminal of the user.

        The route is put even if there is one: this is the latest device now.
        """
        entry = self._users.setdefault(user, _Entry())
        entry.terminals += 1
        self.connected.add(user)
        entry.waiting.append(waiter)
        self._is_due(user, entry)

    def disconnect(self, user: str, waiter: Waiter) -> bool:
        """Removes a terminal of the user. Returns whether it was the last."""
        entry = self._users.get(user)
        if not entry or not entry.terminals:
            waiter.written()
            return False
        entry.terminals -= 1
        if entry.terminals:
            waiter.written()
            return False
        self.connected.discard(user)
        entry.waiting.append(waiter)
        self._is_due(user, entry)
        return True

    def disconnect_all(self) -> None:
        """Removes all terminals."""
        self.connected.clear()
        for user, entry in [*self._users.items()]:
            if entry.terminals:
                entry.terminals = 0
                self._is_due(user, entry)

    def put_all_again(self) -> None:
        """Puts every route again, since it may be lost."""
        for user, entry in [*self._users.items()]:
            if entry.terminals:
                self._is_due(user, entry)

    def retry(self) -> None:
        """Makes what failed due again."""
        self._due.extend(self._failed)
        self._failed.clear()

    def next_change(self) -> Put | Delete | None:
        """Returns the next write, which is under way from here on."""
        while self._due:
            user = self._due.popleft()
            entry = self._users[user]
            self._enter(entry, State.UNDER_WAY)
            if entry.terminals:
                entry.in_doubt = True
                return Put(user)
            if entry.in_doubt or entry.revision:
                return Delete(user, None if entry.in_doubt else entry.revision)
            self.written(user, None)
        return None

    def written(self, user: str, revision: int | None) -> None:
        """Takes the result of a write: the revision of the route, if there is one now."""
        entry = self._users[user]
        entry.revision, entry.in_doubt = revision, False
        is_outdated = entry.state is State.OUTDATED
        self._enter(entry, State.WRITTEN)
        if is_outdated:
            return self._is_due(user, entry)
        for waiter in entry.waiting:
            waiter.written()
        entry.waiting = []
        if not entry.terminals:
            del self._users[user]
        return None

    def failed(self, user: str, problem: str) -> None:
        """Takes note of a write that may or may not have been stored."""
        entry = self._users[user]
        for waiter in entry.waiting:
            waiter.failed(problem)
        self._enter(entry, State.DUE)
        self._failed.append(user)

    @property
    def is_settled(self) -> bool:
        """Whether every route is right."""
        return not self._unsettled

    def _is_due(self, user: str, entry: _Entry) -> None:
        if entry.state is State.WRITTEN:
            self._enter(entry, State.DUE)
            self._due.append(user)
        elif entry.state is State.UNDER_WAY:
            self._enter(entry, State.OUTDATED)

    def _enter(self, entry: _Entry, state: State) -> None:
        self._unsettled += (state is not State.WRITTEN) - (entry.state is not State.WRITTEN)
        entry.state = state
