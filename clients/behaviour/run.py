#!/usr/bin/env python3
"""Runs the behaviour suite against a client: `run.py CLIENT [-k NAME]... [--jobs N]`.

README.md explains the scenarios. BELLHOP_BIN and BELLHOP_NATS_SERVER name other programs than
target/debug/bellhop and the nats-server on the PATH or in target/tools.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from nats.errors import Error as NatsError
from nats.js.errors import KeyNotFoundError

import nats

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
SECONDS = 30.0  # for a condition: clients pause up to 5 s, and machines are slow
SCENARIO_SECONDS = 150
MINUTE = 60 + SECONDS  # for what happens once a minute
FINAL = {"delivered", "rerouted", "merged", "blocked", "cancelled", "expired", "rejected"}
RANGE = re.compile(r"(\D*)(\d+)\.\.\1(\d+)")


class Failed(Exception):
    """The client, or the step, did not do what the scenario expects."""


def expect(condition: object, reason: str) -> None:
    if not condition:
        raise Failed(reason)


def names(listed: str | list[str]) -> list[str]:
    """Returns the ids or users of a list in which `r1..r3` stands for three."""
    if isinstance(listed, list):
        return [name for entry in listed for name in names(entry)]
    if found := RANGE.fullmatch(listed):
        prefix, first, last = found.groups()
        return [f"{prefix}{number}" for number in range(int(first), int(last) + 1)]
    return [listed]


def escape(name: str) -> str:
    return re.sub(rb"[^A-Za-z0-9_-]", lambda byte: b"=%02X" % byte[0][0], name.encode()).decode()


def reminders(described: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the reminders of a step. Each has a content of its own, so that none are merged."""
    fields = dict(described)
    ids, users = names(fields.pop("ids")), names(fields.pop("users", None) or fields.pop("user"))
    if due := re.fullmatch(r"now \+ (\d+)", fields.get("deliver_at", "")):
        at = datetime.now(timezone.utc) + timedelta(seconds=int(due[1]))
        fields["deliver_at"] = at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    content = fields.pop("content", None)
    text = (
        (lambda id: f"Reminder {id}")
        if content is None
        else (lambda id: content and f"{content} {id}")
    )
    return [
        {"id": id, "user": user, "content": text(id)} | fields
        for id, user in zip(ids, itertools.cycle(users))
    ]


def difference(got: Any, expected: Any) -> str:
    """Describes where a value lacks what is expected. Empty if it lacks nothing."""
    if isinstance(expected, dict) and isinstance(got, dict):
        found = ((name, difference(got.get(name), value)) for name, value in expected.items())
        return next((f".{name}{text}" for name, text in found if text), "")
    if isinstance(expected, list) and isinstance(got, list) and len(got) == len(expected):
        found = (
            (n, difference(one, other))
            for n, (one, other) in enumerate(zip(got, expected, strict=True))
        )
        return next((f"[{n}]{text}" for n, text in found if text), "")
    return "" if got == expected else f": {got!r:.300} instead of {expected!r:.300}"


# ------------------------------------------------------------------------------------- the programs
def bellhop() -> str:
    program = Path(os.environ.get("BELLHOP_BIN") or ROOT / "target/debug/bellhop").resolve()
    return (
        str(program)
        if os.access(program, os.X_OK)
        else sys.exit(f"no {program}: cargo build, or set BELLHOP_BIN")
    )


def nats_server() -> str:
    candidates = [os.environ.get("BELLHOP_NATS_SERVER"), shutil.which("nats-server")]
    for program in filter(None, [*candidates, *map(str, ROOT.glob("target/tools/**/nats-server"))]):
        if os.path.isfile(program) and os.access(program, os.X_OK):
            said = subprocess.run([program, "--version"], capture_output=True, text=True).stdout
            if (found := re.search(r"v(\d+)\.(\d+)", said)) and tuple(map(int, found.groups())) >= (
                2,
                14,
            ):
                return program
    sys.exit("no nats-server 2.14 or later: set BELLHOP_NATS_SERVER, or put one on the PATH")


def environment(**more: str) -> dict[str, str]:
    outside = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("BELLHOP_", "NATS_"))
    }
    return outside | more


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Line:
    """A way to the nats-server that can be cut."""

    def __init__(self, port: int) -> None:
        self.target, self.port, self.is_cut, self.writers = port, free_port(), False, []

    async def open(self) -> None:
        self.server = await asyncio.start_server(self.carry, "127.0.0.1", self.port)

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            expect(not self.is_cut, "the line is cut")
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
        except (OSError, Failed):
            writer.close()
            return
        self.writers += [writer, back]
        await asyncio.gather(self.copy(reader, back), self.copy(there, writer))

    async def copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    def cut(self) -> None:
        self.is_cut = True
        while self.writers:
            self.writers.pop().transport.abort()

    def restore(self) -> None:
        self.is_cut = False


class Driver:
    """A driver's process: its unanswered commands, and what its application has accepted."""

    def __init__(self, process: asyncio.subprocess.Process, name: str) -> None:
        self.process, self.name = process, name
        self.numbers, self.answers = itertools.count(1), {}
        self.accepted: list[dict[str, Any]] = []
        self.reading = asyncio.create_task(self.read())

    async def read(self) -> None:
        assert self.process.stdout
        while line := await self.process.stdout.readline():
            said = json.loads(line)
            if "accepted" in said:
                self.accepted.append(said["accepted"])
            else:
                self.answers[said["n"]].set_result(said)
        for answer in self.answers.values():
            if not answer.done():
                answer.set_exception(Failed(f"the driver of {self.name} has ended"))
                answer.exception()

    async def send(self, command: dict[str, Any]) -> asyncio.Future[dict[str, Any]]:
        assert self.process.stdin
        number = next(self.numbers)
        self.answers[number] = asyncio.get_running_loop().create_future()
        self.process.stdin.write(json.dumps({"n": number} | command).encode() + b"\n")
        await self.process.stdin.drain()
        return self.answers[number]

    def by_user(self) -> dict[str, list[str]]:
        shown = defaultdict(list)
        for reminder in self.accepted:
            shown[reminder["user"]].append(reminder["id"])
        return shown


# --------------------------------------------------------------------------------------- a scenario
class Scenario:
    """A scenario under way: its installation, its drivers, and a method for each kind of step."""

    def __init__(self, command: list[str]) -> None:
        self.command = command
        self.files = tempfile.TemporaryDirectory(
            prefix="bellhop-behaviour-", ignore_cleanup_errors=True
        )
        self.dir = Path(self.files.name)
        self.log = (self.dir / "log").open("ab")
        self.port = free_port()
        self.drivers: dict[str, Driver] = {}
        self.lines: dict[str, Line] = {}
        self.processes: list[subprocess.Popen[bytes]] = []
        self.router = self.server = None
        self.published: dict[tuple[str, str], dict[str, Any]] = {}
        self.sources: dict[str, str] = {}

    async def __aenter__(self) -> Scenario:
        await self.nats("start")
        await self.bellhop("start")
        return self

    async def __aexit__(self, *_: object) -> None:
        for driver in self.drivers.values():
            with contextlib.suppress(ProcessLookupError):
                driver.process.kill()
            await driver.process.wait()
            driver.reading.cancel()
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self.connection.close(), 2)
        for process in reversed(self.processes):
            process.kill()
            process.wait()
        self.log.close()
        self.files.cleanup()

    async def run(self, steps: list[dict[str, Any]]) -> None:
        for number, step in enumerate(steps, 1):
            kind, subject = next(iter(step.items()))
            arguments = {name: value for name, value in step.items() if name != kind}
            try:
                await getattr(self, kind)(subject, **arguments)
            except (Failed, NatsError, OSError) as error:
                raise Failed(
                    f"step {number}, {json.dumps(step, ensure_ascii=False):.200}: {error}"
                ) from error
        for name, driver in self.drivers.items():
            keys = Counter((one["source"], one["id"], one["user"]) for one in driver.accepted)
            repeats = [key for key, count in keys.items() if count > 1]
            expect(not repeats, f"{name} accepted again: {repeats[:5]}")

    async def until(self, check: Any, what: Any, within: float = SECONDS) -> None:
        """Waits until `check` returns true. `what` is a text, or returns one."""
        deadline = time.monotonic() + within
        while True:
            with contextlib.suppress(NatsError, OSError):
                result = check()
                if await result if asyncio.iscoroutine(result) else result:
                    return
            if time.monotonic() > deadline:
                raise Failed(f"not within {within:.0f} s: {what() if callable(what) else what}")
            await asyncio.sleep(0.02)

    def spawn(self, *command: str, **env: str) -> subprocess.Popen[bytes]:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": self.log, "stderr": self.log}
        self.processes.append(
            subprocess.Popen(
                command, env=environment(**env), cwd=self.dir, process_group=0, **pipes
            )
        )
        return self.processes[-1]

    async def has_ended(self, process: subprocess.Popen[bytes], what: str) -> None:
        await self.until(lambda: process.poll() is not None, f"{what} ends")

    # steps about drivers
    async def driver(
        self,
        name: str,
        *,
        line: bool = False,
        wait: bool = True,
        error: str | None = None,
        expect: Any = None,
        **command: Any,
    ) -> None:
        if line:
            self.lines[name] = Line(self.port)
            await self.lines[name].open()
        if name not in self.drivers:
            port = self.lines[name].port if line else self.port
            pipe = asyncio.subprocess.PIPE
            process = await asyncio.create_subprocess_exec(
                *self.command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=self.log, limit=1 << 24,
                env=environment(NATS_URL=f"nats://client:secret@127.0.0.1:{port}"))  # fmt: skip
            self.drivers[name] = Driver(process, name)
        if "users" in command:
            command["users"] = names(command["users"])
        if "source" in command and command["do"] == "publisher":
            self.sources[name] = command["source"]
        if "ids" in command:
            command["ids"] = names(command["ids"])
        if "reminders" in command:
            command["reminders"] = reminders(command["reminders"])
            self.published |= {(self.sources[name], one["id"]): one for one in command["reminders"]}
        answer = await self.drivers[name].send(command)
        if wait:
            self.check_answer(await asyncio.wait_for(answer, SECONDS * 2), [error], expect)

    def check_answer(
        self, answer: dict[str, Any], errors: list[str | None], expected: Any = None
    ) -> None:
        expect(
            answer.get("error") in errors,
            f"{answer!r:.500} instead of {' or '.join(map(str, errors))}",
        )
        differs = difference(answer.get("ok"), expected) if expected is not None else ""
        expect(not differs, f"the answer{differs}")

    async def answered(self, name: str, **allowed: str) -> None:
        for answer in self.drivers[name].answers.values():
            self.check_answer(
                await asyncio.wait_for(asyncio.shield(answer), SECONDS * 2),
                [None, *allowed.values()],
            )

    async def under_way(self, name: str) -> None:
        answers = self.drivers[name].answers.values()
        expect(not all(answer.done() for answer in answers), f"{name} has done everything already")

    async def shown(self, name: str, ids: list[str], within: float = SECONDS) -> None:
        driver, expected = self.drivers[name], names(ids)
        lacking = lambda: {*expected} - {one["id"] for one in driver.accepted}  # noqa: E731
        await self.until(
            lambda: not lacking(),
            lambda: f"{name} lacks {len(lacking())}, as {sorted(lacking())[:3]}",
            within,
        )
        shown = Counter(one["id"] for one in driver.accepted)
        expect(
            shown == Counter(expected),
            f"{name} has shown too much: {[*(shown - Counter(expected))][:5]}",
        )
        place = {id: n for n, id in enumerate(expected)}
        for user, got in driver.by_user().items():
            in_order = sorted(got, key=place.__getitem__)
            expect(got == in_order, f"the order of {user}: {got} instead of {in_order}")
        for one in driver.accepted:
            fields = self.published.get((one["source"], one["id"]), {})
            differs = difference(
                one, {name: value for name, value in fields.items() if name != "deliver_at"}
            )
            expect(not differs, f"reminder {one['id']}{differs}")

    async def taken(self, name: str, at_least: int) -> None:
        accepted = self.drivers[name].accepted
        await self.until(
            lambda: len(accepted) >= at_least,
            lambda: f"{name} has accepted {len(accepted)} instead of {at_least}",
        )

    async def occurs(self, name: str, id: str) -> None:
        accepted = self.drivers[name].accepted
        moment = re.compile(re.escape(id) + r"@\d{4}-\d\d-\d\dT\d\d:\d\d:00Z")
        found: list[dict[str, Any]] = []

        def check() -> bool:
            found[:] = [one for one in accepted if moment.fullmatch(one["id"])]
            return bool(found)

        await self.until(check, f"an occurrence of {id}", MINUTE)
        for one in found:
            fields = self.published[(one["source"], id)]
            expected = {name: fields[name] for name in ("user", "content")}
            differs = difference(one, expected | {"deliver_at": one["id"].partition("@")[2]})
            expect(not differs, f"reminder {one['id']}{differs}")

    async def never_shown(self, name: str, ids: list[str]) -> None:
        shown = {one["id"] for one in self.drivers[name].accepted} & {*names(ids)}
        expect(not shown, f"{name} has shown {sorted(shown)[:5]}")

    async def ended(self, name: str) -> None:
        process = self.drivers[name].process
        assert process.stdin
        process.stdin.close()
        expect(
            await asyncio.wait_for(process.wait(), SECONDS) == 0, f"exit code {process.returncode}"
        )

    # steps that ask the installation
    async def ask(self, subject: str, **body: Any) -> Any:
        answer = await self.connection.request(subject, json.dumps(body).encode(), timeout=5)
        if not answer.data:
            raise OSError(f"{subject}: {answer.headers}")
        return json.loads(answer.data)

    async def parked(self, count: int, user: str) -> None:
        async def check() -> bool:
            nonlocal got
            got = (await self.ask("bellhop.api.mailbox", user=user, limit=1))["parked"]
            return bool(got == count)

        got = None
        await self.until(check, lambda: f"{count} reminders wait for {user}: {got} do")

    async def route(self, user: str, instance: str, **state: bool) -> None:
        async def check() -> bool:
            bucket = await self.connection.jetstream().key_value("bellhop_routes")
            try:
                await bucket.get(f"{escape(user)}.{escape(instance)}")
                return state["is"]
            except KeyNotFoundError:
                return not state["is"]

        await self.until(check, f"{user} has {'a' if state['is'] else 'no'} route at {instance}")

    async def busy(self, at_least: int) -> None:
        async def check() -> bool:
            text = (await self.connection.request("bellhop.metrics", timeout=5)).data.decode()
            counts = re.findall(
                r'^bellhop_refusals_total\{[^}]*reason="busy"[^}]*\} (\d+)', text, re.M
            )
            return sum(map(int, counts)) >= at_least

        await self.until(check, f"{at_least} refusals as busy")

    async def outcomes(self, outcome: str, source: str, ids: list[str]) -> None:
        async def check() -> bool:
            nonlocal trails
            trails, cursor = {}, {}
            while True:
                page = await self.ask("bellhop.api.history", source=source, limit=1_000, **cursor)
                trails |= {
                    one["id"]: [step["outcome"] for step in one["trail"]]
                    for one in page["reminders"]
                }
                if not page.get("cursor"):
                    return all(FINAL & {*trails.get(id, ())} for id in names(ids))
                cursor = {"cursor": page["cursor"]}

        trails: dict[str, list[str]] = {}
        lacking = lambda: [id for id in names(ids) if not FINAL & {*trails.get(id, ())}]  # noqa: E731
        await self.until(
            check, lambda: f"{len(lacking())} have no final outcome, as {lacking()[:3]}"
        )
        for id in names(ids):
            final = [one for one in trails[id] if one in FINAL]
            expect(final == [outcome], f"outcomes of {id}: {trails[id]}")

    async def inject(self, body: Any, instance: str, answer: Any) -> None:
        try:
            subject = f"bellhop.app.{escape(instance)}.deliver"
            got = json.loads(
                (await self.connection.request(subject, json.dumps(body).encode(), timeout=2)).data
            )
        except nats.errors.TimeoutError:
            got = None
        expect(got == answer, f"the answer: {got} instead of {answer}")

    async def conformance(self, instance: str, driver: str, leaving: str) -> None:
        command = [bellhop(), "conformance", "--instance", instance, "--leaving", leaving, "--json"]
        slow = ["--set", "heartbeat.timeout=4s", "--set", "delivery.timeout=4s"]
        pipe = asyncio.subprocess.PIPE
        kit = await asyncio.create_subprocess_exec(
            *command, *slow, stdout=pipe, stderr=pipe, env=environment(NATS_URL=self.url())
        )
        assert kit.stderr
        asked = await asyncio.wait_for(kit.stderr.readline(), SECONDS * 3)
        expect(b"disconnect" in asked, f"conformance says {asked!r}")
        await self.driver(driver, do="disconnect", users=[leaving])
        out, err = await asyncio.wait_for(kit.communicate(), SECONDS * 2)
        left = [rule for rule in json.loads(out)["rules"] if rule["verdict"] != "passed"]
        expect(kit.returncode == 0 and not left, f"exit code {kit.returncode}: {left} {err!r}")

    # steps that change the installation
    def url(self, user: str = "bellhop") -> str:
        return f"nats://{user}:secret@127.0.0.1:{self.port}"

    def configure(self, users: tuple[str, ...] = ("bellhop", "client"), more: str = "") -> None:
        who = "\n".join(f"{{ user: {user}, password: secret }}" for user in users)
        (self.dir / "nats.conf").write_text(
            f"listen: 127.0.0.1:{self.port}\nlame_duck_grace_period: 100ms\n{more}\n"
            f"jetstream {{ store_dir: {json.dumps(str(self.dir / 'js'))} }}\n"
            f"authorization {{ users: [\n{who}\n] }}\n"
        )

    async def nats(self, what: str) -> None:
        if what == "start":
            self.configure()
            self.server = self.spawn(nats_server(), "-c", str(self.dir / "nats.conf"))
            await self.until(self.connect, "nats-server accepts connections")
            await self.until(self.connection.jetstream().account_info, "JetStream answers")
            return
        assert self.server
        if what in ("refuse_clients", "forget_user", "normal"):
            users = ("bellhop",) if what == "forget_user" else ("bellhop", "client")
            self.configure(users, "max_connections: 1" if what == "refuse_clients" else "")
            self.server.send_signal(signal.SIGHUP)
            # nats-py closes its connection for good when the server has refused it.
            if what == "normal":
                await self.until(self.connect, "nats-server accepts the suite")
            return
        how = {"stop": signal.SIGTERM, "kill": signal.SIGKILL, "lame_duck": signal.SIGUSR2}[what]
        self.server.send_signal(how)
        await self.has_ended(self.server, "nats-server")
        if what == "lame_duck":
            await self.nats("start")

    async def connect(self) -> bool:
        async def quiet(_: Exception) -> None:
            pass

        how = {
            "error_cb": quiet,
            "max_reconnect_attempts": -1,
            "reconnect_time_wait": 0.1,
            "connect_timeout": 1,
        }
        if not hasattr(self, "connection") or self.connection.is_closed:
            self.connection = await nats.connect(self.url(), allow_reconnect=True, **how)
        return bool(self.connection.is_connected)

    async def bellhop(self, what: str) -> None:
        if what == "start":
            where = ["--nats", self.url(), "--http", "127.0.0.1:0"]
            self.router = self.spawn(bellhop(), "serve", *where, STATE_DIRECTORY=str(self.dir))
            await self.until(
                lambda: self.ask("bellhop.api.history", limit=1), "bellhop answers queries"
            )
            return
        assert self.router
        self.router.send_signal({"stop": signal.SIGTERM, "kill": signal.SIGKILL}[what])
        await self.has_ended(self.router, "bellhop")

    async def line(self, what: str, driver: str) -> None:
        getattr(self.lines[driver], what)()

    async def routes(self, what: str) -> None:
        expect(what == "recreate", f"{what} is no change of the routes")
        await self.connection.jetstream().delete_stream("KV_bellhop_routes")
        setup = await asyncio.create_subprocess_exec(
            bellhop(), "setup", env=environment(NATS_URL=self.url()), stdout=self.log
        )
        expect(await asyncio.wait_for(setup.wait(), SECONDS) == 0, "bellhop setup")

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def run(file: Path, command: list[str], jobs: asyncio.Semaphore) -> bool:
    described = json.loads(file.read_text())  # noqa: ASYNC240
    async with jobs:
        began, problem, log = time.monotonic(), "", ""
        scenario = Scenario(command)
        try:
            async with asyncio.timeout(SCENARIO_SECONDS), scenario:
                try:
                    await scenario.run(described["steps"])
                except Failed as error:
                    problem, log = str(error), (scenario.dir / "log").read_text(errors="replace")
        except (Failed, TimeoutError) as error:
            problem = problem or str(error) or f"not within {SCENARIO_SECONDS} s"
    verdict = "FAILED" if problem else "passed"
    print(
        f"{verdict}  {file.stem:20}  {time.monotonic() - began:5.1f} s  {described['title']}",
        flush=True,
    )
    if problem:
        print(
            f"        {problem}\n"
            + "".join(f"        | {line}\n" for line in log.splitlines()[-30:]),
            flush=True,
        )
    return not problem


async def main() -> int:
    clients = json.loads((HERE / "drivers.json").read_text())
    parser = argparse.ArgumentParser(description="Runs the behaviour suite against a client.")
    parser.add_argument("client", choices=clients)
    parser.add_argument(
        "-k",
        metavar="NAME",
        action="append",
        help="only the scenarios with NAME in their file's name",
    )
    parser.add_argument("--jobs", type=int, default=2, help="scenarios at a time (2)")
    arguments = parser.parse_args()
    wanted = arguments.k or [""]
    files = [
        file
        for file in sorted(HERE.glob("scenarios/*.json"))
        if any(part in file.stem for part in wanted)
    ]
    if not files:
        parser.error("no scenario has that name")
    driver = clients[arguments.client]
    for name, reason in driver.get("lacks", {}).items():
        print(f"left out  {name}: {reason}")
        files = [file for file in files if file.stem != name]
    jobs = asyncio.Semaphore(arguments.jobs)
    passed = await asyncio.gather(*(run(file, driver["command"], jobs) for file in files))
    print(f"{sum(passed)} of {len(passed)} scenarios passed")
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
