"""A line between a browser and a server, which can break and freeze as lines do."""
from __future__ import annotations

import asyncio
import contextlib


class Line:
    """Forwards connections from a port of its own."""

    def __init__(self, to):
        self.to, self.port = to, 0
        self.server, self.connections, self.flows = None, set(), asyncio.Event()

    async def start(self):
        self.flows.set()
        self.server = await asyncio.start_server(self.forward, "127.0.0.1", self.port)
        self.port = self.server.sockets[0].getsockname()[1]

    async def forward(self, reader, writer):
        task = asyncio.current_task()
        self.connections.add(task)
        far = None
        try:
            far_reader, far = await asyncio.open_connection("127.0.0.1", self.to)
            done = [asyncio.create_task(self.carry(reader, far)), asyncio.create_task(self.carry(far_reader, writer))]
            try:
                await asyncio.wait(done, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for one in done:
                    one.cancel()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self.connections.discard(task)
            for end in filter(None, (writer, far)):
                end.close()

    async def carry(self, reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                await self.flows.wait()
                writer.write(data)
                await writer.drain()

    async def cut(self):
        """Breaks what there is, and lets nothing new through."""
        self.server.close()
        for task in list(self.connections):
            task.cancel()
        await asyncio.gather(*self.connections, return_exceptions=True)

    async def restore(self):
        await self.start()

    def freeze(self):
        """Nothing gets through, without a notice to either side."""
        self.flows.clear()

    async def stop(self):
        await self.cut()
