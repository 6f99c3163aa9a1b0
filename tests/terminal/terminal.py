#!/usr/bin/env python3
"""The web terminal as people meet it: a real browser, a real `bellhop terminal`, `bellhop serve` and nats-server.

    pip install --require-hashes --no-deps -r tests/terminal/requirements.txt
    cargo build && python3 tests/terminal/terminal.py [-k NAME]... [--screenshots DIR]

Every scenario has people of its own, and all share one installation and one browser. BELLHOP_BIN, BELLHOP_NATS_SERVER and
BELLHOP_CHROMIUM name other programs than target/debug/bellhop, the nats-server on the PATH, and Debian's chromium.
"""
from __future__ import annotations

import argparse
import asyncio
import contextlib
import inspect
import json
import os
import re
import shutil
import signal
import sys
import time
import traceback
from importlib import resources
from pathlib import Path

from nats.js.errors import KeyNotFoundError
from playwright.async_api import async_playwright
from playwright.async_api import expect as see

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/contract"))
from contract import Failed, World, bellhop, encoded, expect, nats_server, reminder, same, spawn  # noqa: E402
from line import Line  # noqa: E402

PARALLEL, LIMIT = 2, 60  # scenarios at a time; seconds for one
see.set_options(timeout=15_000)  # the machine may be at work on something else
PHONE = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True, "device_scale_factor": 2}
RULES = {
    "desk": [
        {"name": "due", "keywords": ["due", "😀 due", "תשלום"], "action": "highlight"},
        {"name": "invoices", "patterns": [r"invoice \d+"], "action": "link", "href": "https://billing.example/invoices"},
    ],
    "secret": [{"name": "never", "keywords": ["secret"], "action": "block"}],
}


def chromium():
    found = os.environ.get("BELLHOP_CHROMIUM") or shutil.which("chromium")
    return found or sys.exit("no chromium: apt-get install chromium, or set BELLHOP_CHROMIUM")


# ------------------------------------------------------------------------------------------------- the installation
class House(World):
    """An installation with a terminal, and a browser."""

    async def open(self, browser):
        self.browser = browser
        await self.start()
        rules = await self.js.key_value("bellhop_rules")
        for tag, document in RULES.items():
            await rules.put(tag, encoded({"rules": document}))
        await self.until(self.rules_count, "the rules count")
        self.associates = await self.js.key_value("bellhop_associates")
        self.terminal = Terminal(self, "web-1", "alice", "<b>bob</b>")
        await self.terminal.start()

    async def rules_count(self):
        """Whether the last rule that was put has an effect yet."""
        id = f"rules-{time.monotonic()}"
        await self.send("probe", reminder(id, "stranger", content="secret", tags=["secret"]))
        [outcome] = await self.until(lambda: self.trail["probe", id][:1], f"{id} has an outcome")
        return outcome["outcome"] == "blocked"

    async def settled(self):
        """Whatever was published has one final outcome, or waits in a mailbox."""
        def outcomes(key):
            return [outcome["outcome"] for outcome in self.trail[key]]

        is_open = lambda key: not self.finals(key) and outcomes(key)[-1:] != ["parked"]
        await self.gone(lambda: [key for key in self.sent if is_open(key)], "without outcome")
        same([(key, outcomes(key)) for key in self.sent if len(self.finals(key)) > 1], [], "second final outcomes")


class Scene:
    """A house, as far as a scenario goes: people who look at it over lines that can break."""

    def __init__(self, house):
        self.house, self.people, self.lines = house, [], []

    def __getattr__(self, name):
        return getattr(self.house, name)

    async def line(self, port=None):
        """A new line to a terminal."""
        line = Line(port or self.terminal.port)
        await line.start()
        self.lines.append(line)
        return line

    async def person(self, name, line=None, scripts=(), **device):
        """A user who signs in, with a device of their own. Its browser runs these scripts before any page's own."""
        person = Person(name, line or await self.line(), await self.browser.new_context(**device))
        for script in scripts:
            await person.context.add_init_script(script)
        self.people.append(person)
        await person.sign_in()
        return person

    async def clear(self):
        """People leave. Answers what their browsers complain of."""
        for person in self.people:
            await person.context.close()
        for line in self.lines:
            await line.stop()
        return [trouble for person in self.people for trouble in person.troubles]


class Terminal:
    """A `bellhop terminal`, which can be killed and started again on the same port."""

    def __init__(self, house, instance, *names):
        self.house, self.instance, self.names, self.port, self.process = house, instance, names, 0, None

    async def start(self):
        house, log = self.house, self.house.dir / f"{self.instance}.log"
        log.write_bytes(b"")
        env = {k: v for k, v in os.environ.items() if not k.startswith(("BELLHOP_", "NATS_"))}
        where = ["--nats", house.url, "--listen", f"127.0.0.1:{self.port}", "--key-file", str(house.dir / "web.key")]
        names = [f"--suggest={name}" for name in self.names]
        command = [house.program, "terminal", "--instance", self.instance, *where, *names]
        self.process = spawn(command, log, env, house.dir)
        house.processes.append(self.process)
        await house.until(lambda: b" is open" in log.read_bytes(), "the terminal is open")
        self.port = int(log.read_text().split("http://127.0.0.1:")[1].split("/")[0])

    async def end(self, how):
        self.process.send_signal(how)
        await self.house.until(lambda: self.process.poll() is not None, f"the terminal ends on {how.name}")


class Person:
    """A user at a browser window."""

    def __init__(self, name, line, context):
        self.name, self.line, self.context, self.page = name, line, context, None
        self.troubles, self.is_cut = [], False

    @property
    def url(self):
        return f"http://127.0.0.1:{self.line.port}/"

    async def sign_in(self):
        self.page = await self.context.new_page()
        self.page.on("console", lambda message: self.on_console(message))
        self.page.on("pageerror", lambda error: self.troubles.append(f"{self.name}: {error}"))
        self.page.on("dialog", lambda dialog: self.troubles.append(f"{self.name}: a dialog {dialog.message!r}"))
        await self.page.goto(self.url)
        await self.page.get_by_label("Your name").fill(self.name)
        await self.page.get_by_role("button", name="Sign in").click()
        await self.is_("Connected")

    def on_console(self, message):
        # A connection that is cut on purpose is no news.
        is_cut = message.text.startswith("Failed to load resource: net::ERR_") and self.is_cut
        if message.type in ("error", "warning") and not is_cut:
            self.troubles.append(f"{self.name}: {message.text} {message.location['url']}")

    async def is_(self, state):
        await see(self.page.locator("#connection")).to_have_text(state)

    def cut(self):
        self.is_cut = True
        return self.line.cut()

    async def restore(self):
        await self.line.restore()
        await self.is_("Connected")

    @property
    def items(self):
        return self.page.locator("#reminders > li")

    @property
    def contents(self):
        return self.page.locator("#reminders .content")

    async def sees(self, *contents):
        """Waits until these are on the page, the newest first, and nothing else."""
        await see(self.contents).to_have_text(list(contents))


def contents(*ids, user):
    return [reminder(id, user)["content"] for id in reversed(ids)]


# ----------------------------------------------------------- scenarios (every coroutine function of `h` alone)
async def live(h):
    """Reminders appear as they are published, with everything that there is to see of them."""
    ann = await h.person("ann")
    await see(ann.page.locator("#user")).to_have_text("ann")
    await see(ann.page.get_by_text("Nothing yet.")).to_be_visible()
    text = "Please look at invoice 981: it is due on Friday"
    whole = {"title": "Payment due", "content": text, "tags": ["desk"], "priority": "urgent", "user": "ann"}
    await h.send("billing", whole | {"id": "live-1"}, whole | {"id": "live-2"})
    await ann.sees(text)
    item = ann.items.first
    await see(item.locator("h2")).to_have_text("Payment due")
    await see(item.locator("mark")).to_have_text(["due", "due"])
    await see(item.get_by_role("link")).to_have_attribute("href", "https://billing.example/invoices")
    await see(item.get_by_role("link")).to_have_text("invoice 981")
    await see(item.locator(".about")).to_contain_text("Urgent")
    await see(item.locator(".about")).to_contain_text("stands for 2")
    await see(item.locator(".about")).to_contain_text("billing")
    await see(item.locator("time")).to_have_text("just now")
    await see(ann.page.locator("#announcer")).to_have_text(f"Payment due. {text}")
    [outcome] = await h.became("delivered", "billing", "live-1")
    same(outcome["instance"], "web-1", "who has it")


async def away_and_back(h):
    """Reminders that were published while no user was there arrive on return, in order, each once."""
    ben = await h.person("ben")
    await h.send("billing", reminder("away-0", "ben"))
    await ben.sees(*contents("away-0", user="ben"))
    await ben.cut()
    await ben.is_("Reconnecting …")
    ids = [f"away-{n}" for n in range(1, 9)]
    for id in ids:
        await h.send("billing", reminder(id, "ben"))
    await h.became("parked", "billing", *ids)
    await ben.restore()
    await ben.sees(*contents("away-0", *ids, user="ben"))
    await see(ben.items.first.locator(".tags")).to_contain_text("waited in the mailbox since")
    await h.became("delivered", "billing", *ids)


async def two_devices(h):
    """Every window of a user has every reminder once, also one that was gone for a moment."""
    desk, phone = await h.person("cleo"), await h.person("cleo", **PHONE)
    await h.send("billing", reminder("two-1", "cleo"))
    for device in (desk, phone):
        await device.sees(*contents("two-1", user="cleo"))
    await phone.cut()
    await phone.is_("Reconnecting …")
    await h.send("billing", *(reminder(f"two-{n}", "cleo") for n in (2, 3)))
    await desk.sees(*contents("two-1", "two-2", "two-3", user="cleo"))
    await h.became("delivered", "billing", "two-3")
    same(await phone.items.count(), 1, "what the phone has without a line")
    await phone.restore()
    await phone.sees(*contents("two-1", "two-2", "two-3", user="cleo"))
    await desk.page.close()
    await h.send("billing", reminder("two-4", "cleo"))
    await phone.sees(*contents("two-1", "two-2", "two-3", "two-4", user="cleo"))
    await h.became("delivered", "billing", "two-4")


async def window(person, name=None):
    """Another window of the same browser, of the same person or of another one who signs in there."""
    page = await person.context.new_page()
    if name:
        await page.goto(person.url)
        await page.get_by_label("Your name").fill(name)
        await page.get_by_role("button", name="Sign in").click()
    else:
        await page.goto(f"{person.url}as/{person.name}/")
    return page


async def seven_windows(h):
    """Seven windows of one browser, six of one person and one of another, all have reminders at once."""
    pia = await h.person("pia")
    windows = [pia.page] + [await window(pia) for _ in range(5)]
    rex = await window(pia, "rex")
    for page in (*windows, rex):
        await see(page.locator("#connection")).to_have_text("Connected")
    ids = [f"seven-{n}" for n in range(8)]
    for n, id in enumerate(ids, 1):
        await h.send("billing", reminder(id, "pia"), reminder(f"{id}-rex", "rex"))
        for page in (*windows, rex):
            await see(page.locator("#reminders > li")).to_have_count(n, timeout=4_000)
    for page in windows:
        await see(page.locator("#reminders .content")).to_have_text(contents(*ids, user="pia"))
    await h.became("delivered", "billing", *ids, *(f"{id}-rex" for id in ids))
    later = await window(pia)
    await see(later.locator("#reminders .content")).to_have_text(contents(*ids, user="pia"))
    await pia.page.close()
    await h.send("billing", reminder("seven-last", "pia"))
    await see(later.locator("#reminders .content").first).to_have_text(*contents("seven-last", user="pia"))
    await later.get_by_role("button", name="Sign out").click()
    for page in (*windows[1:], later):
        await see(page.get_by_label("Your name")).to_be_visible(timeout=15_000)
    await see(rex.locator("#connection")).to_have_text("Connected")


async def a_fifth_person_waits(h):
    """Four people fit into one browser; the window of a fifth says so, and connects when another closes."""
    sam = await h.person("sam")
    others = [await window(sam, f"sam-{n}") for n in range(2, 5)]
    for page in others:
        await see(page.locator("#connection")).to_have_text("Connected")
    fifth = await window(sam, "sam-5")
    await see(fifth.locator("#connection")).to_have_text("Too many windows")
    await see(fifth.locator("#notice")).to_contain_text("Close one of them")
    await h.send("billing", *(reminder(f"fits-{n}", f"sam-{n}") for n in range(2, 5)))
    for page in others:
        await see(page.locator("#reminders > li")).to_have_count(1)
    await others[0].close()
    await see(fifth.locator("#connection")).to_have_text("Connected")
    await see(fifth.locator("#notice")).to_be_hidden()


async def without_shared_workers(h):
    """Where windows cannot share a connection they say so; four work, and the others wait without disturbing these."""
    tom = await h.person("tom", scripts=["delete window.SharedWorker"])
    windows = [tom.page] + [await window(tom) for _ in range(6)]
    for page in windows[:4]:
        await see(page.locator("#connection")).to_have_text("Connected")
        await see(page.locator("#notice")).to_contain_text("cannot share one connection")
    for page in windows[4:]:
        await see(page.locator("#connection")).to_have_text("Too many windows")
    await h.send("billing", reminder("alone-1", "tom"))
    for page in windows[:4]:
        await see(page.locator("#reminders > li")).to_have_count(1, timeout=4_000)
    await h.became("delivered", "billing", "alone-1")
    await windows[1].close()
    await h.until(lambda: are_connected(windows[4:]), "one of those that waited has the free place")


# A worker whose script cannot be loaded.
BROKEN = """window.SharedWorker = class extends EventTarget {
    port = new MessageChannel().port1;
    constructor() { super(); setTimeout(() => this.dispatchEvent(new Event('error'))); }
};"""


async def a_worker_that_does_not_load(h):
    """Where the shared worker cannot be loaded a window connects by itself."""
    una = await h.person("una", scripts=[BROKEN])
    await h.send("billing", reminder("own-1", "una"))
    await una.sees(*contents("own-1", user="una"))
    await h.became("delivered", "billing", "own-1")


async def frozen_windows(h):
    """While no window of a user answers, that user is away, though their worker runs; and nothing is lost with it."""
    vic = await h.person("vic")
    pages = [vic.page, await window(vic)]
    await see(pages[1].locator("#connection")).to_have_text("Connected")
    for page in pages:
        await page.evaluate("setTimeout(() => { for (const end = Date.now() + 13_000; Date.now() < end;); })")
    await h.send("billing", reminder("frozen-1", "vic"))
    await h.became("parked", "billing", "frozen-1")
    await h.until(lambda: has_gone(h.routes, "vic.web-1"), "the route goes")
    await asyncio.sleep(2)
    expect(await has_gone(h.routes, "vic.web-1"), "a worker connects for windows that do not answer")
    for page in pages:
        await see(page.locator("#reminders .content")).to_have_text(contents("frozen-1", user="vic"))
    await h.became("delivered", "billing", "frozen-1")


async def are_connected(pages):
    return "Connected" in [await page.locator("#connection").text_content() for page in pages]


async def a_dead_line_delivers_nothing(h):
    """What was written to a connection and never seen on a page is not delivered; it waits, and comes."""
    dora = await h.person("dora")
    dora.line.freeze()
    await h.send("billing", reminder("dead-1", "dora"), reminder("dead-2", "dora"))
    await h.became("parked", "billing", "dead-1", "dead-2")
    await h.until(lambda: has_gone(h.routes, "dora.web-1"), "the route of a user who does not answer goes")
    same(await dora.items.count(), 0, "what is on the page")
    dora.is_cut = True
    await dora.line.cut()
    await dora.restore()
    await dora.sees(*contents("dead-1", "dead-2", user="dora"))
    await h.became("delivered", "billing", "dead-1", "dead-2")


async def has_gone(bucket, key):
    try:
        return not await bucket.get(key)
    except KeyNotFoundError:
        return True


async def the_server_restarts(h):
    """A page outlives its server, stopped or killed: it connects again, and misses nothing."""
    terminal = Terminal(h.house, "web-2")
    await terminal.start()
    eva = await h.person("eva", await h.line(terminal.port))
    await h.send("billing", reminder("again-0", "eva"))
    await eva.sees(*contents("again-0", user="eva"))
    eva.is_cut = True
    ids = ["again-0"]
    for how in (signal.SIGTERM, signal.SIGKILL):
        await terminal.end(how)
        await eva.is_("Reconnecting …")
        ids.append(f"again-{how.name}")
        await h.send("billing", reminder(ids[-1], "eva"))
        await h.became("parked", "billing", ids[-1])
        await terminal.start()
        await eva.is_("Connected")
        await eva.sees(*contents(*ids, user="eva"))
    await h.became("delivered", "billing", *ids)
    await terminal.end(signal.SIGTERM)


HOSTILE = [
    "<img src=x onerror=\"window.owned='img'\">",
    "</p></script><script>window.owned='script'</script>",
    "<svg/onload=window.owned='svg'>",
    "&lt;b&gt;entities stay as they are&amp;",
    "javascript:window.owned='link'",
    "{{constructor.constructor('window.owned=1')()}} ${window.owned=1}",
    "line one\nline two\r\n\tand \u0000 control\u0007s",
    "\u202eeht fo pot eht no\u202c \u2066 isolated",
    "W" * 3_000,
]


async def hostile(h):
    """Content is text: nothing in it becomes markup, runs, or leads anywhere but to the web."""
    name = "<img src=x onerror=alert(1)>"
    fay = await h.person(name)
    await see(fay.page.locator("#user")).to_have_text(name)
    hrefs = ["javascript:window.owned='href'", " javascript:alert(1)", "data:text/html,<script>", "//evil.example", "%%%",
             "https://good.example/\"onclick=\"window.owned=1"]
    odd = [{"start": 20, "end": 99}, {"start": 7, "end": 2}, {"start": 2, "end": 2}, {"start": 10**9, "end": 10**10}]
    mark = {"tag": "<b>", "rule": "\"><script>", "field": "content", "action": "highlight"}
    links = [mark | {"action": "link", "start": 4 * n, "end": 4 * n + 4, "href": href} for n, href in enumerate(hrefs)]
    frame = {"source": "<i>mallory</i>", "set": "1", "user": name, "published_at": "2026-11-22T08:00:00Z"}
    batch = [frame | {"id": f"x{n}", "title": text[:1_000], "content": text, "tags": ["<b>tag</b>"]} for n, text in enumerate(HOSTILE)]
    batch.append(frame | {"id": "marks", "content": "abc 0123456789 abc 012345", "marks": [*links, *(mark | it for it in odd)]})
    batch.append(frame | {"id": "odd", "content": "odd", "priority": "low", "count": 7, "for": "<u>", "data": {"__proto__": 1}})
    nats = await h.connect()
    answer = await nats.request("bellhop.app.web-1.deliver", encoded({"reminders": batch}), timeout=5)
    same(json.loads(answer.data), {}, "all are accepted")
    await see(fay.items).to_have_count(len(batch))
    shown = await fay.contents.evaluate_all("nodes => nodes.map(node => node.textContent)")
    same(shown, [one["content"] for one in reversed(batch)], "the texts, to the letter")
    alien = "#reminders :is(img, script, svg, iframe, b, i, u, style, form, input)"
    same(await fay.page.locator(alien).count(), 0, "elements out of content")
    same(await fay.page.evaluate("window.owned"), None, "what ran")
    addresses = await fay.page.locator("#reminders a").evaluate_all("nodes => nodes.map(node => [node.href, node.rel])")
    same(addresses, [["https://good.example/%22onclick=%22window.owned=1", "noopener noreferrer"]], "where links lead")
    marks = await fay.page.locator("#reminders mark").evaluate_all("nodes => nodes.map(node => node.textContent).join('|')")
    same(marks, "1234|5", "a mark that reaches beyond the text ends with it")
    width = await fay.page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    expect(width[0] <= width[1], f"a word of 3,000 letters is broken: {width}")
    with contextlib.suppress(Exception):
        await fay.page.evaluate("document.body.innerHTML = '<b>markup</b>'")
        raise Failed("the page could make markup of text")
    fay.troubles = [it for it in fay.troubles if "requires 'TrustedHTML'" not in it]


CUT = """async ([text, marks]) => {
    const div = document.createElement('div');
    div.append((await import('/reminder.js')).marked(text, marks, 'content'));
    const show = (node) => node.nodeType === Node.TEXT_NODE ? node.data
        : `${node.localName}(${[...node.childNodes].map(show).join(' ')})`;
    return show(div);
}"""


async def any_marks(h):
    """Marks may overlap, and what makes no sense as one is passed over."""
    ola = await h.person("ola")
    mark = lambda start, end, **more: {"field": "content", "action": "highlight", "start": start, "end": end} | more
    link = lambda start, end, href="https://a.example": mark(start, end, action="link", href=href)
    for text, marks, shown in [
        ("abcdef", [], "div(abcdef)"),
        ("abcdef", [mark(1, 3), mark(2, 5)], "div(a mark(b) mark(c) mark(de) f)"),
        ("abcdef", [link(1, 5), mark(2, 3)], "div(a a(b mark(c) de) f)"),
        ("abcdef", [mark(0, 6), link(2, 4)], "div(mark(ab) a(mark(cd)) mark(ef))"),
        ("abcdef", [link(0, 3), link(3, 6)], "div(a(abc) a(def))"),
        ("abcdef", [link(0, 6, "javascript:1"), link(2, 4)], "div(ab a(cd) ef)"),
        ("😀😀b", [mark(1, 2)], "div(😀 mark(😀) b)"),
        ("abc", [mark(-5, 1), mark(2, 99)], "div(mark(a) b mark(c))"),
        ("abc", [mark(2, 1), mark(1, 1), mark(0.5, 2), mark("0", "2"), mark(None, 2), mark(9, 10)], "div(abc)"),
        ("abc", [mark(0, 2, field="title"), mark(0, 2, action="blink"), link(0, 2, None)], "div(ab c)"),
        ("", [mark(0, 1)], "div()"),
    ]:
        same(await ola.page.evaluate(CUT, [text, marks]), shown, f"{text!r} with {marks}")


async def every_script(h):
    """Marks stand where the rules put them, whatever the text is written in."""
    gil = await h.person("gil")
    texts = ["👩‍👩‍👧‍👦 the 😀 due date", "לפני 😀 תשלום אחרון", "é́ due, 张三 due 😀"]
    await h.send("billing", *(reminder(f"script-{n}", "gil", content=text, tags=["desk"]) for n, text in enumerate(texts)))
    await gil.sees(*reversed(texts))
    marks = await gil.items.evaluate_all("items => items.map(item => [...item.querySelectorAll('mark')].map(m => m.textContent))")
    same(marks, [["due", "due"], ["תשלום"], ["😀 due"]], "what is marked")
    directions = await gil.contents.evaluate_all("nodes => nodes.map(node => getComputedStyle(node).direction)")
    same(directions, ["ltr", "rtl", "ltr"], "the directions")


async def history_on_scroll(h):
    """What came before is there as one scrolls, without gap or repeat; what a rule blocked is not."""
    app = await h.app("elsewhere", "hal")
    ids = [f"past-{n:03}" for n in range(100)]
    for id in ids:
        await h.send("billing", reminder(id, "hal"), reminder(f"{id}-x", "hal", content=f"secret {id}", tags=["secret"]))
    await h.became("delivered", "billing", *ids)
    await app.leave("hal")
    await h.until(lambda: in_history(h, "hal", 200), "the history has them")
    hal = await h.person("hal")
    await see(hal.contents.first).to_have_text(reminder(ids[-1], "hal")["content"])
    first = await hal.items.count()
    expect(0 < first < 100, f"{first} of 100 before anybody scrolled")
    await hal.page.get_by_role("button", name="For others").click()
    await see(hal.page.locator("#more")).to_be_hidden()
    await hal.page.get_by_role("button", name="All").click()
    await h.send("billing", reminder("now", "hal"))
    await see(hal.contents.first).to_have_text(reminder("now", "hal")["content"])

    async def is_all():
        await hal.page.mouse.wheel(0, 10_000)
        return await hal.page.get_by_text("That is all.").is_visible()

    await h.until(is_all, "the end of the history")
    await hal.sees(*contents(*ids, "now", user="hal"))


async def in_history(h, user, count):
    answer = await h.connections[0].request("bellhop.api.history", encoded({"user": user, "limit": 1_000}), timeout=5)
    return len(json.loads(answer.data)["reminders"]) >= count


async def associate(h):
    """An associate sees whose reminders they are, can look at those alone, and the other one sees where they went."""
    await h.associates.put("ida", encoded({"associates": ["jon"]}))
    jon = await h.person("jon")
    await h.send("billing", reminder("own", "jon"))
    await jon.sees(*contents("own", user="jon"))
    await h.send("billing", reminder("ida's", "ida"))
    [outcome] = await h.became("rerouted", "billing", "ida's")
    same(outcome["to"], "jon", "who got it")
    await see(jon.items.first.locator(".about")).to_contain_text("for ida")
    for chip, count in (("For others", 1), ("Mine", 1), ("All", 2)):
        await jon.page.get_by_role("button", name=chip, exact=True).click()
        await see(jon.page.locator("#reminders > li:visible")).to_have_count(count)
    await h.until(lambda: in_history(h, "ida", 1), "the history has it")
    ida = await h.person("ida")
    await see(ida.items.first.locator(".about")).to_contain_text("went to jon")
    await jon.page.reload()
    await see(jon.items).to_have_count(2)


async def on_a_phone(h):
    """It fits a phone, and what can be touched is large enough."""
    kim = await h.person("kim", **PHONE)
    await h.send("billing", reminder("phone", "kim", title="A title " * 20, content="Word " * 600, tags=["desk", "t" * 128]))
    await see(kim.items).to_have_count(1)
    width = await kim.page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    same(width, [360, 360], "the width")
    small = "nodes => nodes.filter(n => n.checkVisibility()).map(n => n.getBoundingClientRect()).filter(r => r.height < 30)"
    same(await kim.page.locator("button").evaluate_all(small), [], "buttons too small to touch")
    folded = (await kim.contents.first.bounding_box())["height"]
    await kim.page.get_by_role("button", name="Show all of it").tap()
    expect((await kim.contents.first.bounding_box())["height"] > 2 * folded, "a long text unfolds")


async def many_at_once(h):
    """A burst is shown whole and in order, announced as a number, and does not move what is read."""
    lea = await h.person("lea")
    await h.send("billing", *(reminder(f"first-{n}", "lea", content=f"Long one {n}. " * 80) for n in range(12)))
    await see(lea.items).to_have_count(12)
    await lea.page.mouse.wheel(0, 1_500)
    await h.until(lambda: lea.page.evaluate("scrollY > 1000"), "it scrolled")
    ids = [f"burst-{n}" for n in range(300)]
    await h.send("billing", *(reminder(id, "lea") for id in ids))
    await see(lea.items).to_have_count(312)
    await see(lea.page.locator("#announcer")).to_contain_text("new reminders")
    fresh = lea.page.get_by_role("button", name="300 new reminders")
    await see(fresh).to_be_visible()
    await fresh.click()
    await see(fresh).to_be_hidden()
    same(await lea.page.evaluate("scrollY"), 0, "where the page is")
    shown = await lea.contents.evaluate_all("nodes => nodes.slice(0, 300).map(node => node.textContent)")
    same(shown, contents(*ids, user="lea"), "the burst")


async def accessible(h):
    """axe finds nothing to complain of, in light and dark, and all can be done with the keyboard."""
    axe = (resources.files("axe_playwright_python") / "axe.min.js").read_text()
    await h.associates.put("max", encoded({"associates": ["mia"]}))
    mia = await h.person("mia")
    whole = {"title": "Due", "content": "invoice 12 is due", "tags": ["desk"]}
    for priority in ("low", "normal", "high", "urgent"):
        await h.send("billing", {"id": f"axe-{priority}", "user": "mia", "priority": priority} | whole)
    await h.send("billing", {"id": "axe-max", "user": "max", **whole})
    await see(mia.items).to_have_count(5)
    await mia.page.evaluate("Promise.all(document.getAnimations().map(it => it.finished))")
    for page in (mia.page, await mia.context.new_page()):
        if page is not mia.page:
            await page.goto(mia.url)
        for scheme in ("light", "dark"):
            await page.emulate_media(color_scheme=scheme)
            found = await page.evaluate(axe + "; axe.run().then(r => r.violations.map(v => [v.id, v.nodes.map(n => n.html)]))")
            same(found, [], f"what axe finds in {scheme} at {page.url}")
    await mia.page.bring_to_front()
    await mia.page.locator("body").press("Tab")
    await see(mia.page.get_by_role("link", name="To the reminders")).to_be_focused()
    await mia.page.keyboard.press("Enter")
    await mia.page.keyboard.press("Tab")
    await see(mia.items.first.get_by_role("link")).to_be_focused()


async def strangers(h):
    """A page is asked by its own user and from its own pages alone. Signing out ends all windows of the session."""
    nia = await h.person("nia")
    [cookie] = await nia.context.cookies(nia.url + "as/nia/")
    same([cookie["httpOnly"], cookie["sameSite"], cookie["path"]], [True, "Strict", "/as/nia/"], "the cookie")
    own = {"Cookie": f"{cookie['name']}={cookie['value']}"}
    here = f"127.0.0.1:{nia.line.port}"
    from_us = {"Origin": f"http://{here}"}
    cases = [
        (200, "GET", "/as/nia/history", own), (401, "GET", "/as/nia/history", {}), (401, "GET", "/as/ann/history", own),
        (401, "GET", "/as/ann/events", own), (401, "POST", "/as/ann/seen", own | from_us), (303, "GET", "/as/ann/", own),
        (403, "POST", "/as/nia/seen", own), (403, "POST", "/sign-in", {"Origin": "https://evil.example"}),
        (403, "POST", "/as/nia/seen", own | {"Origin": "null"}), (421, "GET", "/", {"Host": "evil.example"}),
        (404, "GET", "/as/nia/nothing", own), (404, "GET", "/as/=zz/", own), (404, "GET", "/../etc/passwd", {}),
        (405, "DELETE", "/", {}), (400, "POST", "/as/nia/seen", own | from_us), (413, "POST", "/sign-in", from_us),
        (204, "POST", "/as/nia/seen", own | from_us),
    ]
    bodies = {413: "user=" + "x" * 5_000, 204: "18446744073709551615"}
    for status, method, path, headers in cases:
        got, answer = await ask(nia.line.port, method, path, {"Host": here} | headers, bodies.get(status, "x"))
        same(got, status, f"{method} {path} with {sorted(headers)}")
        expect("require-trusted-types-for 'script'" in answer, f"{method} {path} is not protected")
    tab = await nia.context.new_page()
    await tab.goto(nia.url + "as/nia/")
    await see(tab.locator("#connection")).to_have_text("Connected")
    await nia.page.get_by_role("button", name="Sign out").click()
    for page in (nia.page, tab):
        await see(page.get_by_label("Your name")).to_be_visible(timeout=15_000)
    same(await nia.context.cookies(nia.url + "as/nia/"), [], "cookies of a signed-out user")


async def ask(port, method, path, headers, body):
    """One HTTP request, by hand: browsers do not let one say these things."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = body if method == "POST" else ""
    lines = [f"{method} {path} HTTP/1.1", "Connection: close", f"Content-Length: {len(body)}"]
    writer.write("\r\n".join([*lines, *(f"{k}: {v}" for k, v in headers.items()), "", body]).encode())
    answer = (await asyncio.wait_for(reader.read(), 10)).decode()
    writer.close()
    return int(answer.split()[1]), answer


async def signing_in(h):
    """Names are suggested, the page says that without passwords, one browser can be two people, and signing in ends."""
    line = await h.line()
    one = await h.person("oda", line)
    page = await one.context.new_page()
    await page.goto(one.url)
    await see(page.get_by_text("without passwords")).to_be_visible()
    await see(page.locator("#names button")).to_have_text(["alice", "<b>bob</b>"])
    await page.get_by_role("button", name="<b>bob</b>").click()
    await see(page.locator("#user")).to_have_text("<b>bob</b>")
    await h.send("billing", reminder("to-oda", "oda"), reminder("to-bob", "<b>bob</b>"))
    await one.sees(*contents("to-oda", user="oda"))
    await see(page.locator("#reminders .content")).to_have_text([reminder("to-bob", "<b>bob</b>")["content"]])
    one.on_console = lambda message: None  # it complains of being refused
    await one.context.clear_cookies()
    await one.cut()
    await line.restore()
    await see(one.page.get_by_label("Your name")).to_be_visible(timeout=15_000)


async def beside_the_demo(h):
    """`bellhop demo` has something for visitors, and its account stays right."""
    log = h.dir / "demo.log"
    demo = spawn([h.program, "demo", "--terminal", "127.0.0.1:0", "--rate", "300"], log)
    h.processes.append(demo)
    address = lambda: re.search(r"browser +http://127.0.0.1:(\d+)/ ", log.read_text())
    line = await h.line(int((await h.until(address, "the demo has a terminal", within=30))[1]))
    robin, bob = await h.person("robin", line), await h.person("bob", line)
    await see(robin.items.locator(".source").first).to_have_text("front-desk")
    await see(robin.page.locator('[data-whose="others"]').first).to_contain_text("for kim", timeout=30_000)
    await see(bob.items.nth(9)).to_be_visible(timeout=15_000)
    for person in (robin, bob):
        person.is_cut = True
    demo.send_signal(signal.SIGINT)
    await h.until(lambda: demo.poll() is not None, "the demo ends", within=30)
    expect(demo.returncode == 0 and "Nothing lost" in log.read_text(), log.read_text()[-1_500:])


# ------------------------------------------------------------------------------------------------------ screenshots
async def take_pictures(h, directory):
    """The pictures of docs/terminal.md, of what really came."""
    await h.associates.put("bob", encoded({"associates": ["alice"]}))
    line = await h.line()
    alice = await h.person("alice", line, viewport={"width": 900, "height": 760})
    say = lambda id, source, user="alice", **fields: h.send(source, {"id": id, "user": user, "tags": ["desk"], **fields})
    await say("p1", "hr", title="Training", content="The training in room 12 begins on Thursday at 10:00", priority="low")
    await see(alice.items).to_have_count(1)
    await alice.cut()
    await h.until(lambda: has_gone(h.routes, "alice.web-1"), "alice has left")
    await say("p2", "claims", title="Inspection booked", content="An expert looks at the damage of claim 7714 on Monday")
    await h.became("parked", "claims", "p2")
    await alice.restore()
    await see(alice.items).to_have_count(2)
    twin = {"title": "Invoice due", "content": "invoice 981 over EUR 1,204.50 is due on Friday", "user": "alice", "tags": ["desk"]}
    await h.send("billing", twin | {"id": "p3"}, twin | {"id": "p4"}, twin | {"id": "p5"})
    await say("p6", "claims", "bob", title="Callback wanted", content="Please call the customer of claim 8120 back; an answer is due today", priority="urgent")
    await say("p7", "billing", title="Payment failed", content="The card for invoice 977 was declined 😕 we try again on Tuesday", priority="high")
    await see(alice.items).to_have_count(5)
    phone = await h.person("alice", line, color_scheme="dark", **PHONE | {"device_scale_factor": 1.5})
    await see(phone.items).to_have_count(5)
    for person, name in ((alice, "terminal"), (phone, "terminal-phone")):
        await person.page.evaluate("Promise.all(document.getAnimations().map(it => it.finished))")
        await person.page.screenshot(path=directory / f"{name}.png")


# ------------------------------------------------------------------------------------------------------- the runner
async def run(one, house):
    began, scene = time.monotonic(), Scene(house)
    try:
        async with asyncio.timeout(LIMIT):
            await one(scene)
            same(await scene.clear(), [], "what browsers complain of")
    except Exception as problem:  # the next scenario may still tell something
        said = f"{problem}" if isinstance(problem, (Failed, AssertionError)) else traceback.format_exc()
        print(f"FAILED {one.__name__} after {time.monotonic() - began:.1f} s: {said}", *await scene.clear(), sep="\n", flush=True)
        return False
    print(f"ok     {one.__name__} ({time.monotonic() - began:.1f} s)", flush=True)
    return True


async def run_all(chosen, programs, pictures):
    house = House(*programs)
    try:
        async with async_playwright() as playwright:
            sandbox = [] if os.getuid() else ["--no-sandbox"]  # it does not run as root
            browser = await playwright.chromium.launch(executable_path=chromium(), args=sandbox)
            await house.open(browser)
            slots = asyncio.Semaphore(PARALLEL)

            async def in_turn(one):
                async with slots:
                    return await run(one, house)

            passed = await asyncio.gather(*map(in_turn, chosen))
            if pictures:
                scene = Scene(house)
                await take_pictures(scene, pictures)
                await scene.clear()
            await house.settled()
            await browser.close()
    finally:
        await house.stop()
    print(f"{sum(passed)} passed, {len(passed) - sum(passed)} failed")
    return 0 if all(passed) else 1


def main():
    parser = argparse.ArgumentParser(description="Looks at Bellhop's web terminal through a browser.")
    parser.add_argument("-k", metavar="NAME", action="append", help="only the scenarios with NAME in their name")
    parser.add_argument("--screenshots", metavar="DIR", type=Path, help="take the pictures of docs/terminal.md, too")
    arguments = parser.parse_args()
    functions = filter(inspect.iscoroutinefunction, list(globals().values()))
    scenarios = [one for one in functions if [*inspect.signature(one).parameters] == ["h"]]
    chosen = [one for one in scenarios if any(part in one.__name__ for part in arguments.k or [""])]
    if not chosen:
        parser.error("no scenario of that name")
    return asyncio.run(run_all(chosen, (bellhop(), nats_server()), arguments.screenshots))


if __name__ == "__main__":
    sys.exit(main())
