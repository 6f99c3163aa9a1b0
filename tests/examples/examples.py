#!/usr/bin/env python3
"""The examples of app servers and publishers, against a real nats-server and a real `bellhop serve`.

    pip install --require-hashes --no-deps -r tests/examples/requirements.txt
    pip install --no-deps clients/python
    npm ci --prefix examples/node
    cargo build && python3 tests/examples/examples.py [-k NAME]...

Worlds, waiting and what holds in every scenario are the contract test's.
"""
from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/contract"))

from nats.js.errors import KeyNotFoundError  # noqa: E402
from playwright.async_api import async_playwright  # noqa: E402
from playwright.async_api import expect as see  # noqa: E402

import contract  # noqa: E402
from contract import RUNNING, escape, expect, same  # noqa: E402

PYTHON = [sys.executable, "-u"]
EXAMPLES = {
    "python": {name: [*PYTHON, str(ROOT / f"examples/python/{name}.py")] for name in ("app_server", "publisher")},
    "node": {name: ["node", str(ROOT / f"examples/node/{name}.mjs")] for name in ("app_server", "publisher")},
}


def reminders(first, count, user="alice"):
    return [{"id": f"r{n}", "user": user, "content": f"Reminder {n} 张三"} for n in range(first, first + count)]


def ids(those):
    return [one["id"] for one in those]


class Wire:
    """A way to the nats-server that can be cut."""

    async def lay(self, w):
        self.address, self.writers = w.url.rsplit("/", 1)[1].split(":"), []
        self.server = await asyncio.start_server(self.carry, "127.0.0.1", 0)
        host, port = self.server.sockets[0].getsockname()
        self.url = f"nats://{host}:{port}"
        return self

    async def carry(self, reader, writer):
        there, back = await asyncio.open_connection(*self.address)
        self.writers += [writer, back]
        await asyncio.gather(self.copy(reader, back), self.copy(there, writer))

    async def copy(self, reader, writer):
        while data := await reader.read(65_536):
            writer.write(data)
        writer.close()

    def cut(self):
        while self.writers:
            self.writers.pop().close()


class Example:
    """An example's app server, and what it has shown."""

    def __init__(self, w, language, name, *users, url=None, is_read=True):
        self.w, self.name, self.out = w, name, w.dir / f"{name}.out"
        command = [*EXAMPLES[language]["app_server"], name, *users]
        with (w.dir / f"{name}.err").open("ab") as err, self.out.open("ab") as out:
            pipes = {"stdin": subprocess.PIPE, "stdout": out if is_read else subprocess.PIPE, "stderr": err}
            self.process = subprocess.Popen(command, env=environment(url or w.url), process_group=0, **pipes)
        RUNNING.add(self.process)
        w.processes.append(self.process)

    def say(self, line):
        """A line on its standard input, where terminals come and go."""
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.flush()

    def shown(self):
        return [json.loads(line) for line in self.out.read_text().split("\n")[:-1]]

    async def shows(self, those):
        """Waits until it has shown as many as these, and checks that it is these in this order."""
        await self.w.until(lambda: len(self.shown()) >= len(those), lambda: f"{self.name} shows {len(self.shown())}")
        same(ids(self.shown()), ids(those), f"what {self.name} shows")

    async def revision(self, user):
        """The revision of a user's route; 0 if there is none."""
        try:
            return (await self.w.routes.get(f"{escape(user)}.{escape(self.name)}")).revision
        except KeyNotFoundError:
            return 0

    async def has_route(self, user, since=0):
        async def is_newer():
            return await self.revision(user) > since

        await self.w.until(is_newer, f"{self.name} puts a route for {user}")
        return await self.revision(user)

    async def has_no_route(self, user):
        async def is_gone():
            return not await self.revision(user)

        await self.w.until(is_gone, f"{self.name} deletes the route of {user}")

    async def ends(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        await self.w.until(lambda: self.process.poll() is not None, f"{self.name} ends")
        same(self.process.returncode, 0, f"the exit code of {self.name}")


def environment(url):
    return {name: value for name, value in os.environ.items() if not name.startswith("NATS_")} | {"NATS_URL": url}


async def finished(w, command, lines=""):
    """Runs a program to its end."""
    how = {"env": environment(w.url), "capture_output": True, "text": True, "timeout": 60}
    return await asyncio.to_thread(subprocess.run, command, input=lines, **how)


async def publish(w, language, source, those):
    """Publishes by the example."""
    lines = "".join(f"{json.dumps(one)}\n" for one in those)
    done = await finished(w, [*EXAMPLES[language]["publisher"], source], lines)
    expect(done.returncode == 0, f"the publisher failed: {done.stderr[-500:]}")


# ------------------------------------------------------------------------------ scenarios, of two languages each
async def away_and_back(w, publisher, language):
    """Where the user is, what waits comes in order, and a repeat is shown once; through absence, restart and reconnect."""
    source, everything = "bil.ling 张", reminders(0, 250)
    wire = await Wire().lay(w)
    app = Example(w, language, "app 1", "alice", "a.b 张三", url=wire.url)
    await app.has_route("a.b 张三")
    route = await app.has_route("alice")
    await publish(w, publisher, source, everything[:10])
    await app.shows(everything[:10])

    app.say("+alice")  # a second terminal; one that leaves is not the last
    route = await app.has_route("alice", since=route)
    app.say("-alice")
    await app.has_route("alice")
    app.say("-alice")
    await app.has_no_route("alice")
    await publish(w, publisher, source, everything[10:220])
    await w.became("parked", source, *ids(everything[10:220]))
    app.say("+alice")
    await app.shows(everything[:220])
    route = await app.has_route("alice")

    await publish(w, publisher, source, everything[:10])  # Bellhop drops the repeat, so it is not shown again.
    wire.cut()
    await app.has_route("alice", since=route)
    await publish(w, publisher, source, everything[220:230])
    await app.shows(everything[:230])

    others = await w.routes.put(f"{escape('a.b 张三')}.{escape('app 1')}", b"")
    await app.ends()
    same([await app.revision(user) for user in ("alice", "a.b 张三")], [0, others], "the routes of one that has ended")
    await publish(w, publisher, source, everything[230:])
    await w.became("parked", source, *ids(everything[230:]))
    app = Example(w, language, "app 1", "alice")
    await app.shows(everything)


async def too_much(w, language):
    """An app server with nowhere to put more says `busy`; what is left waits, and comes in order."""
    app = Example(w, language, "app-1", "alice", is_read=False)
    await app.has_route("alice")
    everything = [one | {"content": one["content"] + "x" * 500} for one in reminders(0, 3_000)]
    await publish(w, "python", "billing", everything)

    async def is_busy():
        metrics = await w.connections[0].request("bellhop.metrics", timeout=5)
        return re.search(rb'^bellhop_refusals_total\{[^}]*reason="busy"[^}]*\} [1-9]', metrics.data, re.M)

    await w.until(is_busy, "it says busy")
    lines = (app.process.stdout.readline() for _ in everything)
    shown = await asyncio.wait_for(asyncio.to_thread(lambda: [json.loads(line) for line in lines]), 30)
    same(ids(shown), ids(everything), "what it shows")


async def conforms(w, language):
    """`bellhop conformance` finds every rule kept."""
    leaver = "a.b 张三"
    app = Example(w, language, "app-1", "alice", leaver)
    await app.has_route(leaver)
    command = [w.program, "conformance", "--instance", "app-1", "--leaving", leaver, "--json"]
    pipes = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE}
    done = await asyncio.create_subprocess_exec(*command, env=environment(w.url), **pipes)
    said = await asyncio.wait_for(done.stderr.readline(), 60)
    expect(b"disconnect" in said, f"conformance says {said}")
    app.say(f"-{leaver}")
    out, err = await asyncio.wait_for(done.communicate(), 60)
    expect(out, f"{err}")
    report = json.loads(out)
    left = [rule for rule in report["rules"] if rule["verdict"] != "passed"]
    expect(done.returncode == 0 and not left, f"exit code {done.returncode}: {left}")
    keys = [(one["source"], one["id"], one["user"]) for one in app.shown()]
    expect(len(keys) > 10 and len(keys) == len({*keys}), "what came again is shown again")
    return f"{report['passed']} rules"


async def python_publishes_for_node(w):
    """Examples: what a publisher in Python sends, an app server in Node shows."""
    await away_and_back(w, "python", "node")


async def node_publishes_for_python(w):
    """Examples: what a publisher in Node sends, an app server in Python shows, until Ctrl-C."""
    app = Example(w, "python", "app 1", "alice", "a.b 张三")
    await app.has_route("a.b 张三")
    await app.has_route("alice")
    everything = reminders(0, 210)
    await publish(w, "node", "bil.ling 张", everything[:200])
    await app.shows(everything[:200])
    await app.ends(signal.SIGINT)
    same([await app.revision(user) for user in ("alice", "a.b 张三")], [0, 0], "the routes of one that has ended")
    await publish(w, "node", "bil.ling 张", everything[200:])
    await w.became("parked", "bil.ling 张", *ids(everything[200:]))
    app = Example(w, "python", "app 1", "alice")
    await app.shows(everything)


async def a_page_shows_reminders(w, command, port, started):
    """The web app: a page shows its user's reminders as they come, as text, and what came while it was closed."""
    hostile = "<img src=x onerror=\"document.title='owned'\">"
    server = contract.spawn(command, w.dir / "web.log", environment(w.url), w.dir)
    w.processes.append(server)
    await w.until(lambda: started in (w.dir / "web.log").read_bytes(), "the web app starts")
    async with async_playwright() as playwright:
        chromium = os.environ.get("BELLHOP_CHROMIUM") or shutil.which("chromium")
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        pages = [await browser.new_page() for _ in range(2)]
        for page in pages:
            await page.goto(f"http://127.0.0.1:{port}/?user=alice")
            await see(page.locator("#connection")).to_have_text("Connected")
        texts = [hostile, "Reminder 1"]
        await publish(w, "python", "billing", [{"id": text, "user": "alice", "content": text} for text in texts])
        for page in pages:
            await see(page.locator("#reminders p")).to_have_text(texts[::-1])
            same(await page.title(), "Reminders", "the title: content is text")
        await pages[0].close()
        await publish(w, "python", "billing", [{"id": "2", "user": "alice", "content": "Reminder 2"}])
        await see(pages[1].locator("#reminders p")).to_have_text(["Reminder 2", *texts[::-1]])
        await pages[1].close()
        await w.until(lambda: gone(w.routes, "alice.web-1"), "the route goes with the last page")
        await publish(w, "python", "billing", [{"id": "3", "user": "alice", "content": "Reminder 3"}])
        await w.became("parked", "billing", "3")
        page = await browser.new_page()
        await page.goto(f"http://127.0.0.1:{port}/?user=alice")
        await see(page.locator("#reminders p")).to_have_text(["Reminder 3"])
        await browser.close()
    server.send_signal(signal.SIGTERM)
    await w.until(lambda: server.poll() is not None, "the web app ends")


async def a_page_of_fastapi_shows_reminders(w):
    """The web app in Python, on FastAPI and WebSockets."""
    port = free_port()
    command = [*PYTHON, "-m", "uvicorn", "web:web", "--app-dir", str(ROOT / "examples/python"), "--port", str(port)]
    await a_page_shows_reminders(w, command, port, b"startup complete")


async def a_page_of_hono_shows_reminders(w):
    """The web app in Node, on Hono and Server-Sent Events."""
    port = free_port()
    command = ["node", str(ROOT / "examples/node/web/server.mjs"), "web-1", str(port)]
    await a_page_shows_reminders(w, command, port, b"open http")


async def gone(bucket, key):
    try:
        return not await bucket.get(key)
    except KeyNotFoundError:
        return True


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def node_is_busy(w):
    """`busy` | parks the reminder and tries again after 0.1 s, …, in order."""
    await too_much(w, "node")


async def node_conforms(w):
    """The example in Node keeps the contract."""
    return await conforms(w, "node")


if __name__ == "__main__":
    sys.exit(contract.main(globals()))
