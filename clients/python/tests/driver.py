#!/usr/bin/env python3
"""The driver of the Python client for the behaviour suite. See clients/behaviour/README.md."""

import asyncio
import json
import logging
import sys
from typing import Any

import bellhop


def write(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


class Application:
    """An app server, and an application that behaves as it is asked to."""

    def __init__(self, app: bellhop.AppServer) -> None:
        self.app = app
        self.behaviour = "accept"
        self.held: list[bellhop.Delivery] = []
        self.takes = asyncio.Event()
        self.takes.set()
        self.task = asyncio.create_task(self.run())

    def behave(self, behaviour: str) -> None:
        self.behaviour = behaviour
        (self.takes.clear if behaviour == "stop" else self.takes.set)()
        if behaviour == "accept":
            for delivery in self.held:
                self.accept(delivery)
            self.held.clear()

    def accept(self, delivery: bellhop.Delivery) -> None:
        write({"accepted": delivery.reminder})
        delivery.accept()

    async def run(self) -> None:
        deliveries = aiter(self.app)
        while True:
            await self.takes.wait()
            try:
                delivery = await anext(deliveries)
            except StopAsyncIteration:
                return
            if not self.takes.is_set() or self.behaviour == "hold":
                self.held.append(delivery)
            elif self.behaviour == "later":
                delivery.later()
            else:
                self.accept(delivery)


class Driver:
    """Obeys commands. Each starts before the next line is read."""

    def __init__(self) -> None:
        self.nats = bellhop.Connection()
        self.queries = bellhop.Queries(self.nats)
        self.application: Application | None = None
        self.publisher: bellhop.Publisher | None = None

    async def obey(self, n: int, do: str, arguments: dict[str, Any]) -> None:
        try:
            ok = await getattr(self, do)(**arguments)
            write({"n": n, "ok": ok or {}})
        except bellhop.BellhopError as error:
            write({"n": n, "error": error.kind, "message": str(error)})

    async def app_server(self, instance: str, **options: Any) -> None:
        app = bellhop.AppServer(instance, self.nats, **options)
        await app.start()
        self.application = Application(app)

    async def connect(self, users: list[str]) -> None:
        assert self.application
        await self.application.app.connect(*users)

    async def disconnect(self, users: list[str]) -> None:
        assert self.application
        await self.application.app.disconnect(*users)

    async def behave(self, **how: str) -> None:
        assert self.application
        self.application.behave(how["as"])

    async def drain(self) -> None:
        assert self.application
        await self.application.app.drain()
        await self.application.task

    async def publisher_(self, source: str, **options: Any) -> None:
        self.publisher = bellhop.Publisher(source, self.nats, **options)
        await self.publisher.start()

    async def publish(self, reminders: list[dict[str, Any]]) -> dict[str, Any]:
        assert self.publisher
        publishing = [await self.publisher.enqueue(**reminder) for reminder in reminders]
        return {"ids": [(await one).id for one in publishing]}

    async def cancel(self, ids: list[str], **whose: str) -> None:
        assert self.publisher
        await self.publisher.cancel(*ids, **whose)

    async def history(self, **filters: Any) -> Any:
        return await self.queries.history(**filters)

    async def why(self, source: str, id: str, **whose: str) -> Any:
        return await self.queries.why(source, id, **whose)

    async def mailbox(self, user: str, **how: Any) -> Any:
        return await self.queries.mailbox(user, **how)

    async def erase(self, user: str) -> Any:
        return await self.queries.erase(user)


async def main() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    driver, tasks = Driver(), set()
    await driver.nats.open()
    while line := await reader.readline():
        command = json.loads(line)
        n, do = command.pop("n"), command.pop("do")
        task = asyncio.create_task(driver.obey(n, {"publisher": "publisher_"}.get(do, do), command))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        await asyncio.sleep(
            0
        )  # It starts, and its first effects come before those of the next command.
    sys.exit(0)


logging.basicConfig(level=logging.INFO)
asyncio.run(main())
