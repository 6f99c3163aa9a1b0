"""Which routes are written for users who come and go, without a network."""

import random
import unittest

from bellhop.table import Delete, Put, Table


class Waiter:
    def __init__(self) -> None:
        self.times = 0
        self.problems: list[str] = []

    def written(self) -> None:
        self.times += 1

    def failed(self, problem: str) -> None:
        self.problems.append(problem)


class TableTest(unittest.TestCase):
    def setUp(self) -> None:
        self.table = Table()
        self.waiter = Waiter()

    def test_first_terminal_puts_and_last_deletes(self) -> None:
        self.table.connect("alice", self.waiter)
        self.assertEqual(self.table.connected, {"alice"})
        self.assertEqual(self.table.next_change(), Put("alice"))
        self.table.written("alice", 7)
        self.table.connect("alice", self.waiter)
        self.assertEqual(self.table.next_change(), Put("alice"))
        self.table.written("alice", 8)
        self.assertFalse(self.table.disconnect("alice", self.waiter))
        self.assertIsNone(self.table.next_change())
        self.assertTrue(self.table.disconnect("alice", self.waiter))
        self.assertEqual(self.table.connected, set())
        self.assertEqual(self.table.next_change(), Delete("alice", 8))
        self.table.written("alice", None)
        self.assertTrue(self.table.is_settled)
        self.assertEqual(self.waiter.times, 4)

    def test_changes_during_write_make_one_more(self) -> None:
        self.table.connect("alice", self.waiter)
        self.table.next_change()
        for _ in range(3):
            self.table.disconnect("alice", self.waiter)
            self.table.connect("alice", self.waiter)
        self.table.disconnect("alice", self.waiter)
        self.assertIsNone(self.table.next_change())
        self.table.written("alice", 7)
        self.assertEqual(self.table.next_change(), Delete("alice", 7))

    def test_put_in_doubt_is_deleted_in_any_case(self) -> None:
        self.table.connect("alice", self.waiter)
        self.table.next_change()
        self.table.failed("alice", "no stream")
        self.table.disconnect("alice", self.waiter)
        self.assertIsNone(self.table.next_change())
        self.table.retry()
        self.assertEqual(self.table.next_change(), Delete("alice", None))
        self.assertEqual(self.waiter.problems, ["no stream"])

    def test_failed_delete_keeps_its_condition(self) -> None:
        self.table.connect("alice", self.waiter)
        self.table.next_change()
        self.table.written("alice", 7)
        self.table.disconnect("alice", self.waiter)
        self.assertEqual(self.table.next_change(), Delete("alice", 7))
        self.table.failed("alice", "no answer")
        self.table.retry()
        self.assertEqual(self.table.next_change(), Delete("alice", 7))

    def test_disconnecting_a_stranger_changes_nothing(self) -> None:
        self.assertFalse(self.table.disconnect("alice", self.waiter))
        self.assertIsNone(self.table.next_change())
        self.assertEqual(self.waiter.times, 1)

    def test_route_ends_up_matching_the_terminals(self) -> None:
        """Writes are stored or lost, with and without anybody who hears of it."""
        for seed in range(2_000):
            self.run_random(random.Random(seed), f"seed {seed}")

    def run_random(self, chance: random.Random, seed: str) -> None:
        table, waiters, terminals = Table(), [], 0
        route: int | None = None
        revision, under_way = 0, None

        def end_write(is_stored: bool, is_heard: bool) -> None:
            nonlocal route, revision, under_way
            if under_way is None:
                return
            if is_stored:
                revision += 1
                if isinstance(under_way, Put):
                    route = revision
                elif under_way.revision in (None, route):
                    route = None
            if is_stored and is_heard:
                table.written("alice", revision if isinstance(under_way, Put) else None)
            else:
                table.failed("alice", "no answer")
            under_way = None

        for _ in range(chance.randint(0, 40)):
            match chance.randint(0, 5):
                case 0:
                    waiters.append(Waiter())
                    table.connect("alice", waiters[-1])
                    terminals += 1
                case 1:
                    waiters.append(Waiter())
                    self.assertEqual(table.disconnect("alice", waiters[-1]), terminals == 1, seed)
                    terminals = max(terminals - 1, 0)
                case 2:
                    change = table.next_change()
                    self.assertTrue(under_way is None or change is None, seed)
                    under_way = under_way or change
                case 3:
                    end_write(*chance.choice([(True, True), (True, False), (False, False)]))
                case 4:
                    table.put_all_again()
                case 5:
                    table.retry()
        for _ in range(4):
            under_way = under_way or table.next_change()
            end_write(is_stored=True, is_heard=True)
            table.retry()
        self.assertTrue(table.is_settled, seed)
        self.assertEqual(route is not None, terminals > 0, seed)
        self.assertEqual({waiter.times for waiter in waiters} - {1}, set(), seed)


if __name__ == "__main__":
    unittest.main()
