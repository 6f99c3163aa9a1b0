#!/usr/bin/env python3
"""Compares the app server with a bare nats-py subscriber on the same stream of deliveries.

    throughput.py [--reminders N] [--least PERCENT]

Each receiver is a process of its own. The bare one does the least that an app server can do: it
reads the JSON of each request, shows each reminder, and answers `{}`. It checks nothing: not who is
connected, not what was shown before, not how much waits. The app server's application shows the
same, and accepts each reminder by itself (`deliveries`), or each request at once (`batches`). This
process sends the same requests to one after the other, several rounds, with up to 64 unanswered.

A receiver is one thread that a faster sender would keep busy, so its rate is what it takes in a
second of processor time. That does not depend on what else the machine does.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

import bellhop

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "clients/behaviour"))
UNANSWERED = 64  # what a few members of an installation have under way
USERS = [f"user-{number}" for number in range(1_000)]


shown = 0


def show(reminder: Any) -> None:
    """Does what an application does with a reminder, as little as it may be."""
    global shown
    shown += len(reminder["content"])


def delivery(first: int, count: int) -> bytes:
    reminders = [
        {
            "id": f"inv-{number}",
            "source": "billing",
            "set": f"2026-11-22/billing/{number // 100}",
            "user": USERS[number % len(USERS)],
            "title": "Invoice due",
            "content": f"Invoice {number} is due on Friday. Please look at it before the weekend.",
            "tags": ["billing", "due"],
            "priority": "normal",
            "published_at": "2026-11-22T08:00:00.004Z",
            "data": {"invoice": number},
        }
        for number in range(first, first + count)
    ]
    return json.dumps({"reminders": reminders}).encode()


async def report(client: Client, name: str) -> None:
    """Answers how much processor time this process has used."""

    async def answer(msg: Msg) -> None:
        await msg.respond(repr(time.process_time()).encode())

    await client.subscribe(f"processor-time.{name}", cb=answer)
    await client.flush()
    print("ready", flush=True)


async def bare(url: str) -> None:
    client = await nats.connect(url)

    async def accept(msg: Msg) -> None:
        for reminder in json.loads(msg.data)["reminders"]:
            show(reminder)
        await msg.respond(b"{}")

    await client.subscribe("bellhop.app.bare.deliver", cb=accept)
    await report(client, "bare")
    await asyncio.Event().wait()


async def app_server(url: str, how: str) -> None:
    connection = bellhop.Connection(url)
    async with connection, bellhop.AppServer(how, connection, answer_within=60) as app:
        await app.connect(*USERS)
        assert connection.client
        await report(connection.client, how)
        if how == "batches":
            async for batch in app.batches():
                for reminder in batch.reminders:
                    show(reminder)
                batch.accept()
        async for delivery in app:
            show(delivery.reminder)
            delivery.accept()


async def processor_time(client: Client, name: str) -> float:
    return float((await client.request(f"processor-time.{name}", timeout=60)).data)


async def send(client: Client, name: str, requests: list[bytes]) -> float:
    """Returns how many seconds of processor time the receiver needs for the requests."""
    waiting = iter(requests)

    async def work() -> None:
        for body in waiting:
            answer = await client.request(f"bellhop.app.{name}.deliver", body, timeout=60)
            assert answer.data == b"{}", answer.data

    began = await processor_time(client, name)
    await asyncio.gather(*(work() for _ in range(UNANSWERED)))
    return await processor_time(client, name) - began


async def compare(url: str, reminders: int, rounds: int) -> float:
    names = ("bare", "deliveries", "batches")
    client, number, worst, receivers = await nats.connect(url), 0, 100.0, {}
    await client.jetstream().create_key_value(bucket="bellhop_routes", storage="memory")
    for name in names:
        command = [sys.executable, __file__, "--receive", name, "--url", url]
        receivers[name] = subprocess.Popen(command, stdout=subprocess.PIPE)
        receivers[name].stdout.readline()  # type: ignore[union-attr]
    try:
        for per_request in (1, 20, 100):
            seconds: dict[str, list[float]] = {name: [] for name in names}
            count = max(reminders // (10 + per_request), UNANSWERED)
            for _ in range(rounds):
                requests = [delivery(number + n * per_request, per_request) for n in range(count)]
                number += count * per_request
                for name in names:
                    seconds[name].append(await send(client, name, requests))
            # Other programs on the machine can only make it slower.
            rates = {name: count * per_request / min(seconds[name]) for name in names}
            shares = {name: 100 * rates[name] / rates["bare"] for name in names}
            worst = min(worst, max(shares["deliveries"], shares["batches"]))
            columns = (f"{name} {rates[name]:8,.0f}/s {shares[name]:4.0f} %" for name in names)
            print(f"{per_request:3} a request:  {'  '.join(columns)}", flush=True)
    finally:
        await client.close()
        for process in receivers.values():
            process.kill()
            process.wait()
    return worst


def main() -> int:
    parser = argparse.ArgumentParser(description="Compares the app server with bare nats-py.")
    parser.add_argument("--reminders", type=int, default=40_000, help="of one round (40,000)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (5)")
    parser.add_argument(
        "--least", type=float, default=0, help="fails below this share of bare nats-py"
    )
    parser.add_argument("--receive", help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.receive:
        work = (
            bare(arguments.url)
            if arguments.receive == "bare"
            else app_server(arguments.url, arguments.receive)
        )
        return asyncio.run(work) or 0
    import run  # The behaviour suite's: it finds a nats-server and a port.

    port = run.free_port()
    with tempfile.TemporaryDirectory(prefix="bellhop-throughput-") as directory:
        command = [run.nats_server(), "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", directory]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            worst = asyncio.run(
                compare(f"nats://127.0.0.1:{port}", arguments.reminders, arguments.rounds)
            )
        finally:
            server.kill()
            server.wait()
    print(f"at least {worst:.0f} % of bare nats-py")
    return int(worst < arguments.least)


if __name__ == "__main__":
    sys.exit(main())
