"""Requests and decisions, without a network and a clock."""

from __future__ import annotations

import json
import random
import unittest
from collections.abc import Iterable
from typing import Any

from bellhop.pending import KEPT, TAKEN, Pending, Request, UnreadableError

USERS = {"alice", "bob"}


def reminder(id: str, user: str = "alice") -> dict[str, Any]:
    return {
        "id": id,
        "source": "billing",
        "user": user,
        "content": f"Reminder {id}",
        "published_at": "2026-11-23T08:00:00Z",
    }


class Taken:
    """A reminder that the application has taken."""

    def __init__(self, pending: Pending, request: Request, place: int) -> None:
        self.request, self.place = request, place
        self.id = request.reminders[place]["id"]
        self.user = request.reminders[place]["user"]

    @property
    def state(self) -> int:
        return self.request.states[self.place]


class World:
    """Pending requests at a time that tests set."""

    def __init__(self, capacity: int = 10, remember: int = 100) -> None:
        self.now = 0.0
        self.sent: list[tuple[str, bytes]] = []
        self.pending = Pending(capacity, remember, 600, 1.5, self.send)

    def send(self, inbox: str, body: bytes) -> None:
        self.sent.append((inbox, body))

    def request(self, inbox: str, *reminders: str | dict[str, Any]) -> None:
        listed = [reminder(one) if isinstance(one, str) else one for one in reminders]
        body = json.dumps({"reminders": listed}).encode()
        self.pending.request(inbox, body, self.now, USERS)

    def take(self) -> Taken:
        taken = self.take_next()
        assert taken, "there is no reminder"
        return taken

    def take_next(self) -> Taken | None:
        return next(self.pending.taken(Taken), None)

    def accept(self, *those: Taken) -> None:
        for taken in those:
            self.pending.accept(taken.request, taken.place)

    def later(self, *those: Taken) -> None:
        for taken in those:
            self.pending.decide(taken.request, taken.place, "busy")

    def take_batch(self) -> list[str]:
        return ids(self.take_all())

    def take_all(self) -> list[Taken]:
        request, places = self.pending.take_batch() or (None, ())
        return [Taken(self.pending, request, place) for place in places] if request else []

    def answers(self) -> dict[str, list[tuple[str, str]]]:
        answers, self.sent = self.sent, []
        refused = {inbox: json.loads(body).get("refused", []) for inbox, body in answers}
        return {
            inbox: [(one["id"], one["reason"]) for one in those] for inbox, those in refused.items()
        }


def ids(those: Iterable[Taken]) -> list[str]:
    return [taken.id for taken in those]


class PendingTest(unittest.TestCase):
    def test_answers_when_all_are_decided(self) -> None:
        world = World()
        world.request("first", "1", "2")
        world.accept(world.take())
        self.assertEqual(world.answers(), {})
        world.accept(world.take())
        self.assertEqual(world.answers(), {"first": []})
        self.assertTrue(world.pending.is_idle)

    def test_repeat_of_accepted_is_accepted_once(self) -> None:
        world = World()
        world.request("first", "1")
        world.accept(world.take())
        world.request("second", "1", "1")
        self.assertIsNone(world.take_next())
        self.assertEqual(world.answers(), {"first": [], "second": []})

    def test_repeat_of_undecided_waits_for_same_decision(self) -> None:
        world = World()
        world.request("first", "1")
        entry = world.take()
        world.request("second", "1")
        self.assertIsNone(world.take_next())
        world.accept(entry)
        self.assertEqual(world.answers(), {"first": [], "second": []})

    def test_same_id_of_other_user_is_another(self) -> None:
        world = World()
        world.request("first", reminder("1"), reminder("1", "bob"))
        self.assertEqual([world.take().user, world.take().user], ["alice", "bob"])

    def test_stranger_is_refused_alone(self) -> None:
        world = World()
        world.request("first", reminder("1", "carol"), reminder("2"))
        world.accept(world.take())
        self.assertEqual(world.answers(), {"first": [("1", "not_connected")]})

    def test_without_room_later_ones_are_refused_too(self) -> None:
        world = World(capacity=2)
        world.request("first", "1", "2", "3", "4")
        world.accept(world.take(), world.take())
        self.assertEqual(world.answers(), {"first": [("3", "busy"), ("4", "busy")]})

    def test_refusal_takes_back_what_is_behind(self) -> None:
        world = World()
        world.request("first", reminder("1"), reminder("2", "bob"), reminder("3"))
        world.later(world.take())
        self.assertEqual(ids([world.take()]), ["2"])
        self.assertIsNone(world.take_next())
        world.request("second", "1")
        self.assertEqual(ids([world.take()]), ["1"])

    def test_accepted_behind_refused_is_refused(self) -> None:
        world = World()
        world.request("first", "1", "2")
        first, second = world.take(), world.take()
        world.accept(second)
        world.later(first)
        self.assertEqual(world.answers(), {"first": [("1", "busy"), ("2", "busy")]})
        world.request("second", "1", "2")
        world.accept(world.take())
        self.assertEqual(world.answers(), {"second": []})

    def test_deadline_refuses_and_takes_back(self) -> None:
        world = World()
        world.request("first", "1", "2")
        taken = world.take()
        world.now = 1.5
        world.pending.expire(world.now)
        self.assertEqual(world.answers(), {"first": [("1", "busy"), ("2", "busy")]})
        world.request("second", "1", "2")
        self.assertEqual(ids([world.take()]), ["2"])
        world.accept(taken)
        self.assertEqual(world.answers(), {})

    def test_late_decision_answers_next_delivery(self) -> None:
        world = World()
        world.request("first", "1")
        taken = world.take()
        world.now = 2.0
        world.pending.expire(world.now)
        world.accept(taken)
        world.answers()
        world.request("second", "1")
        self.assertEqual(world.answers(), {"second": []})

    def test_leaving_refuses_what_waits(self) -> None:
        world = World()
        world.request("first", reminder("1"), reminder("2", "bob"), reminder("3"))
        taken = world.take()
        world.pending.disconnected({"alice"})
        self.assertEqual(ids([world.take()]), ["2"])
        self.assertIsNone(world.take_next())
        self.assertEqual(taken.id, "1")

    def test_second_decision_counts_for_nothing(self) -> None:
        world = World()
        world.request("first", "1", "2")
        entry = world.take()
        world.accept(entry)
        world.later(entry)
        world.accept(world.take())
        self.assertEqual(world.answers(), {"first": []})
        self.assertEqual(entry.state, KEPT)

    def test_batch_is_rest_of_one_request(self) -> None:
        world = World()
        world.request("first", "1", "2", "3")
        world.request("second", "4")
        world.take()
        self.assertEqual(world.take_batch(), ["2", "3"])
        self.assertEqual(world.take_batch(), ["4"])
        self.assertEqual(world.take_batch(), [])

    def test_without_memory_repeats_are_handed_over(self) -> None:
        world = World(remember=0)
        for inbox in ("first", "second"):
            world.request(inbox, "1")
            world.accept(world.take())
        self.assertEqual(world.answers(), {"first": [], "second": []})

    def test_memory_is_bounded_in_number_and_time(self) -> None:
        world = World(remember=2)
        for id in ("1", "2", "3", "4", "5", "6", "7"):
            world.request(id, id)
            world.accept(world.take())
        world.request("known", "6")
        self.assertIsNone(world.take_next())
        world.request("again", "1")
        self.assertEqual(ids([world.take()]), ["1"])
        world.now = 1_300.0
        world.request("late", "7")
        self.assertEqual(ids([world.take()]), ["7"])

    def test_refused_comes_again_after_others_were_forgotten(self) -> None:
        world = World(remember=2)
        world.request("held", "held")
        held = world.take()
        for id in ("1", "2", "3", "4", "5", "6", "7"):
            world.request(id, id)
            world.accept(world.take())
        world.request("again", "held")
        self.assertIsNone(world.take_next())
        world.later(held)
        world.answers()
        world.request("new", "held")
        world.accept(world.take())
        self.assertEqual(world.answers(), {"new": []})

    def test_what_is_over_keeps_no_contents(self) -> None:
        world = World()
        world.request("first", "1", "2")
        world.request("second", "3")
        taken = [world.take(), world.take()]
        world.accept(*taken)
        world.now = 1.5
        world.pending.expire(world.now)
        self.assertEqual([one.request.reminders for one in taken], [[], []])
        self.assertTrue(world.pending.is_idle)

    def test_unreadable_requests_are_not_taken(self) -> None:
        world = World()
        bodies = [
            b"",
            b"[]",
            b"{}",
            b'{"reminders":{}}',
            b'{"reminders":7}',
            b'{"reminders":[1]}',
            b'{"reminders":[{"id":"1"}]}',
            b'{"reminders":[{"id":1,"source":"s","user":"u","content":"c"}]}',
        ]
        for body in bodies:
            with self.assertRaises(UnreadableError, msg=body):
                world.pending.request("inbox", body, 0.0, USERS)
        self.assertTrue(world.pending.is_idle)

    def test_random_traffic_keeps_order_and_bounds(self) -> None:
        for seed in range(100):
            Traffic(self, random.Random(seed)).run()


class Traffic:
    """Bellhop delivers two users' reminders until they are accepted; the application does anything.

    Of one user, Bellhop has one request under way. The application decides in order, and when it
    refuses a reminder it refuses what else it holds for that user.
    """

    def __init__(self, test: PendingTest, chance: random.Random) -> None:
        self.test, self.chance = test, chance
        self.capacity = chance.choice([1, 3, 10])
        self.world = World(self.capacity)
        self.left = {user: [str(n) for n in range(20)] for user in USERS}
        self.under_way: dict[str, list[str]] = {}
        self.held: list[Taken] = []
        self.shown: dict[str, list[str]] = {user: [] for user in USERS}

    def run(self) -> None:
        expected = {user: [*ids] for user, ids in self.left.items()}
        for _ in range(5_000):
            self.deliver()
            self.take()
            self.decide()
            self.hear()
            if not any(self.left.values()):
                break
        self.test.assertEqual(self.shown, expected)
        self.test.assertTrue(self.world.pending.is_idle)

    def deliver(self) -> None:
        user = self.chance.choice(sorted(USERS))
        if self.left[user] and user not in self.under_way:
            self.under_way[user] = self.left[user][: self.chance.randint(1, 5)]
            self.world.request(user, *(reminder(id, user) for id in self.under_way[user]))

    def take(self) -> None:
        while self.chance.random() < 0.7 and (taken := self.world.take_next()):
            self.held.append(taken)
        if self.chance.random() < 0.3:
            self.held += self.world.take_all()
        undecided = sum(taken.state == TAKEN for taken in self.held)
        self.test.assertLessEqual(undecided, self.capacity)

    def decide(self) -> None:
        while self.held and self.chance.random() < 0.7:
            taken = self.held.pop(0)
            if self.chance.random() < 0.2:
                theirs = [taken, *(one for one in self.held if one.user == taken.user)]
                self.held = [one for one in self.held if one.user != taken.user]
                self.world.later(*theirs)
            else:
                self.shown[taken.user].append(taken.id)
                self.world.accept(taken)

    def hear(self) -> None:
        self.world.now += self.chance.choice([0.0, 0.0, 0.5, 2.0])
        self.world.pending.expire(self.world.now)
        for user, refused in self.world.answers().items():
            names = {id for id, _ in refused}
            accepted = {id for id in self.under_way.pop(user) if id not in names}
            self.left[user] = [id for id in self.left[user] if id not in accepted]


if __name__ == "__main__":
    unittest.main()
