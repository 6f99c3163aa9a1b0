"""An app server for Bellhop, complete: routes, heartbeats, deliveries. Copy it, and put your connections where terminals are.

    python app_server.py app-1 alice bob

The users named are connected to it. Lines on standard input connect and disconnect others: `+carol`, `-alice`. Each
reminder that is accepted is printed as a line of JSON. NATS_URL, NATS_USER and NATS_PASSWORD say where NATS is and who asks.
"""

import asyncio
import json
import logging
import re
import signal
import sys
import threading
from collections import Counter
from os import environ

import nats

MOST_WAITING = 1_000  # reminders accepted and not shown yet; what comes then is told `busy`
MOST_REMEMBERED = 100_000  # accepted reminders that a repeat is known by
KEY = ("source", "id", "user")
URL = environ.get("NATS_URL", "nats://127.0.0.1:4222")
NATS = {"servers": URL, "user": environ.get("NATS_USER"), "password": environ.get("NATS_PASSWORD")}


def escape(name):
    """A name as one token of a subject."""
    return re.sub(rb"[^A-Za-z0-9_-]", lambda byte: b"=%02X" % byte[0][0], name.encode()).decode()


class AppServer:
    def __init__(self, name):
        self.name = name
        self.terminals = Counter()  # user → open terminals: who is connected
        self.revisions = {}  # user → revision of the route that was put
        self.changed = asyncio.Queue()  # users whose route may not be what `terminals` says
        self.waiting = asyncio.Queue(MOST_WAITING)  # accepted reminders
        self.accepted = {}  # their keys, the oldest first

    async def start(self):
        self.nc = await nats.connect(**NATS, name=self.name, max_reconnect_attempts=-1, reconnected_cb=self.again)
        self.js = self.nc.jetstream()
        # A route promises that somebody answers, so the subscriptions come first.
        for verb, answer in ("heartbeat", self.heartbeat), ("deliver", self.deliver):
            await self.nc.subscribe(f"bellhop.app.{escape(self.name)}.{verb}", cb=self.answering(answer))
        await self.nc.flush()
        self.tasks = asyncio.gather(self.write_routes(), self.show())

    async def stop(self):
        """Nobody is connected from here on. What was accepted is shown before this ends."""
        self.terminals.clear()
        await self.again()
        await self.changed.join()
        await self.nc.drain()
        await self.waiting.join()
        self.tasks.cancel()

    def terminal(self, user, change):
        """A terminal of the user's comes, 1, or goes, -1. The table is first: reminders come as soon as the route is there."""
        self.terminals[user] = max(self.terminals[user] + change, 0)
        self.changed.put_nowait(user)

    async def again(self):
        """Writes all routes anew: Bellhop may have dropped some while the connection was lost."""
        for user in {*self.terminals, *self.revisions}:
            self.changed.put_nowait(user)

    async def write_routes(self):
        """Makes the routes what `terminals` says, one after the other: whoever comes and goes has the last word."""
        while True:
            user = await self.changed.get()
            key, revision = f"$KV.bellhop_routes.{escape(user)}.{escape(self.name)}", self.revisions.pop(user, None)
            try:
                if self.terminals[user]:
                    self.revisions[user] = (await self.js.publish(key)).seq
                elif revision:
                    headers = {"KV-Operation": "DEL", "Nats-TTL": "1h", "Nats-Expected-Last-Subject-Sequence": str(revision)}
                    await self.js.publish(key, headers=headers)
            except nats.errors.Error as error:
                # 10071, a wrong last sequence: a route that somebody else has put or deleted since is not ours to delete.
                if getattr(error, "err_code", None) != 10071:
                    logging.warning(f"route of {user}: {error!r}, trying again")
                    self.revisions[user] = revision
                    asyncio.get_running_loop().call_later(1, self.changed.put_nowait, user)
            self.changed.task_done()

    def answering(self, answer):
        async def on_request(msg):
            try:
                said = answer(json.loads(msg.data))
            except (ValueError, TypeError, LookupError, RecursionError) as error:
                return logging.warning(f"cannot read what came on {msg.subject}: {error!r}")
            await msg.respond(json.dumps(said).encode())
        return on_request

    def heartbeat(self, request):
        return {"connected": [user for user in request["users"] if self.terminals[user]]}

    def deliver(self, request):
        reminders = request["reminders"]  # all are read before one is accepted
        if not all(isinstance(reminder[field], str) for reminder in reminders for field in (*KEY, "content")):
            raise ValueError("not a reminder")
        reasons = [(reminder, self.take(reminder)) for reminder in reminders]
        refused = [{field: one[field] for field in KEY} | {"reason": reason} for one, reason in reasons if reason]
        return {"refused": refused} if refused else {}

    def take(self, reminder):
        """Accepts a reminder, or says why not. Nothing is awaited in here, so that after one that is refused as busy
        no later one of the same request is accepted: their order stays."""
        if not self.terminals[reminder["user"]]:
            return "not_connected"
        if (key := tuple(reminder[field] for field in KEY)) in self.accepted:
            return None  # a repeat: accepted, and shown once
        if self.waiting.full():
            return "busy"
        self.waiting.put_nowait(reminder)
        self.accepted[key] = True
        if len(self.accepted) > MOST_REMEMBERED:
            del self.accepted[next(iter(self.accepted))]

    async def show(self):
        """Stands for the connections to users' terminals."""
        while True:
            await asyncio.to_thread(print, json.dumps(await self.waiting.get()), flush=True)
            self.waiting.task_done()


async def main(name, *users):
    app, loop, stopped = AppServer(name), asyncio.get_running_loop(), asyncio.Event()

    def read_lines():
        for line in map(str.strip, sys.stdin):
            if change := {"+": 1, "-": -1}.get(line[:1]):
                loop.call_soon_threadsafe(app.terminal, line[1:], change)

    loop.add_signal_handler(signal.SIGINT, stopped.set)
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    await app.start()
    for user in users:
        app.terminal(user, 1)
    threading.Thread(target=read_lines, daemon=True).start()
    await stopped.wait()
    await app.stop()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:])) if len(sys.argv) > 1 else sys.exit(__doc__)
