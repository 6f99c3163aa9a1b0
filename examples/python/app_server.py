"""An app server. `python app_server.py app-1 alice bob` prints the reminders of these users."""

import asyncio
import contextlib
import json
import sys

import bellhop


async def main(instance: str, *users: str) -> None:
    async with bellhop.AppServer(instance) as app:
        await app.connect(*users)
        async for delivery in app:
            with delivery as reminder:  # Accepted at the end, refused as busy after an error.
                print(json.dumps(reminder), flush=True)


with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C deletes the routes first.
    asyncio.run(main(*sys.argv[1:]))
