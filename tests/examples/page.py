#!/usr/bin/env python3
"""The examples' web pages in a real browser, with a real `bellhop serve` and nats-server.

    pip install --require-hashes --no-deps -r tests/terminal/requirements.txt
    npm ci --prefix clients/typescript && npm ci --prefix examples/node
    cargo build && python3 tests/examples/page.py [-k NAME]...

Each page is at `/?user=NAME`, has the number of its reminders as items of `#reminders`, the newest first, and says
`connected` in `#state`.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
from pathlib import Path

from playwright.async_api import async_playwright
from playwright.async_api import expect as see

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/contract"))

import contract  # noqa: E402
from contract import encoded, expect, spawn  # noqa: E402

NODE = ["node", str(ROOT / "examples/node/web/server.mjs"), "web 1", "0"]


def chromium():
    found = os.environ.get("BELLHOP_CHROMIUM") or shutil.which("chromium")
    return found or sys.exit("no chromium: apt-get install chromium, or set BELLHOP_CHROMIUM")


@contextlib.asynccontextmanager
async def browser():
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield launched
        await launched.close()


async def started(w, command):
    """Starts an app server with a page, and returns its address."""
    log = w.dir / "web.log"
    env = {name: value for name, value in os.environ.items() if not name.startswith("NATS_")}
    w.processes.append(spawn(command, log, env | {"NATS_URL": w.url}))
    address = lambda: re.search(rb"http://127\.0\.0\.1:\d+", log.read_bytes())  # noqa: E731
    await w.until(address, lambda: f"the page is open: {log.read_text()[-500:]}")
    return address()[0].decode()


async def shows_reminders(w, command):
    rules = await w.js.key_value("bellhop_rules")
    await rules.put("desk", encoded({"rules": [{"name": "due", "keywords": ["due"], "action": "highlight"}]}))
    url = await started(w, command)
    async with browser() as chrome:
        troubles = []

        async def opened(user):
            page = await chrome.new_page()
            page.on("pageerror", lambda error: troubles.append(f"{error}"))
            page.on("dialog", lambda dialog: troubles.append(f"a dialog: {dialog.message}"))
            await page.goto(f"{url}/?user={user}")
            await see(page.locator("#state")).to_contain_text("connected")
            return page

        first, second, bob = await opened("alice"), await opened("alice"), await opened("bob")
        text = "👩‍👩‍👧 It is due <img src=x onerror=alert(1)>"
        await w.publish("billing", {"reminders": [{"id": "1", "user": "alice", "title": "<b>Due</b>", "content": text, "tags": ["desk"]}]})
        for page in (first, second):
            await see(page.locator("#reminders li")).to_have_count(1)
            await see(page.locator("#reminders li")).to_contain_text(text)
            await see(page.locator("#reminders li")).to_contain_text("<b>Due</b>")
        await see(bob.locator("#reminders li")).to_have_count(0)
        await w.became("delivered", "billing", "1")

        await second.close()
        await w.publish("billing", {"reminders": [{"id": "2", "user": "alice", "content": "Two"}]})
        await see(first.locator("#reminders li")).to_have_count(2)
        await first.close()
        routes = await w.js.key_value("bellhop_routes")

        async def has_left():
            return not any(key.startswith("alice.") for key in await routes.keys())

        await w.until(has_left, "the route of alice is deleted")
        away = [{"id": f"{n}", "user": "alice", "content": f"Number {n}"} for n in range(3, 9)]
        await w.publish("billing", {"reminders": away})
        await w.became("parked", "billing", *(one["id"] for one in away))
        back = await opened("alice")
        newest_first = [re.compile(one["content"]) for one in reversed(away)]
        await see(back.locator("#reminders li")).to_have_text(newest_first)
        await w.became("delivered", "billing", *(one["id"] for one in away))
        expect(not troubles, f"in the browser: {troubles}")


async def node_page(w):
    """The page of the example in Node shows its user's reminders, and nobody else's."""
    await shows_reminders(w, NODE)


if __name__ == "__main__":
    sys.exit(contract.main(globals()))
