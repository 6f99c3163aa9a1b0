"""A web app with FastAPI: a page that shows its user's reminders as they come, over a WebSocket.

    uvicorn web:web --app-dir examples/python    # http://127.0.0.1:8000/?user=alice

Here the address of the page says who the user is. Take it from your session instead.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import bellhop
from fastapi import FastAPI, WebSocket
from fastapi.responses import FileResponse

PATIENCE = 1.0  # seconds that a page may take; a reminder waits for the slowest page of its user

pages: defaultdict[str, set[WebSocket]] = defaultdict(set)


async def show(reminder: bellhop.DeliveredReminder) -> bool:
    """Sends a reminder to all pages of its user. Returns whether one of them took it."""

    async def send(page: WebSocket) -> bool:
        try:
            await asyncio.wait_for(page.send_json(reminder), PATIENCE)
        except Exception:  # The page has gone; its own task notices.
            return False
        return True

    return any(await asyncio.gather(*map(send, [*pages[reminder["user"]]])))


async def show_all(app: bellhop.AppServer) -> None:
    async for delivery in app:
        delivery.accept() if await show(delivery.reminder) else delivery.later()


@asynccontextmanager
async def lifespan(web: FastAPI) -> AsyncIterator[None]:
    async with bellhop.AppServer("web-1") as app:
        web.state.app = app
        showing = asyncio.create_task(show_all(app))
        yield
        showing.cancel()


web = FastAPI(lifespan=lifespan)


@web.get("/")
async def page() -> FileResponse:
    return FileResponse(Path(__file__).with_name("web.html"))


@web.websocket("/reminders")
async def reminders(page: WebSocket, user: str) -> None:
    await page.accept()
    pages[user].add(page)
    try:
        async with web.state.app.connected(user):
            async for _ in page.iter_text():
                pass
    finally:
        pages[user].discard(page)
