"""A business system. `python publisher.py billing` publishes standard input, a reminder a line."""

import asyncio
import json
import sys

import bellhop


async def main(source: str) -> None:
    async with bellhop.Publisher(source) as publisher:
        sent = [await publisher.enqueue(**json.loads(line)) for line in sys.stdin]
        for one in sent:
            print(await one)  # It is stored. After an error run it again with the same ids.


asyncio.run(main(*sys.argv[1:]))
