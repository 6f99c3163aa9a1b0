"""A business system that publishes reminders to Bellhop: each line of standard input is one, as JSON.

    echo '{"id": "inv-981", "user": "alice", "content": "Invoice 981 is due"}' | python publisher.py billing

`user` and `content` must be there; docs/protocol.md has the other fields. All lines are one set, or several where they are
many. Exit code 0 says that JetStream has stored every set: Bellhop will not lose it. After anything else run it again with
the same lines: the same `id` is the same reminder, however often it is published. NATS_URL, NATS_USER and NATS_PASSWORD say
where NATS is and who asks.
"""

import asyncio
import hashlib
import json
import re
import sys
from os import environ

import nats
from nats.js.errors import APIError, NoStreamResponseError

MOST_IN_A_SET = 100
ATTEMPTS = 8  # with pauses of 0.1 s, 0.2 s, …: about 25 s of a server that is away
URL = environ.get("NATS_URL", "nats://127.0.0.1:4222")
NATS = {"servers": URL, "user": environ.get("NATS_USER"), "password": environ.get("NATS_PASSWORD")}


def escape(name):
    """A name as one token of a subject."""
    return re.sub(rb"[^A-Za-z0-9_-]", lambda byte: b"=%02X" % byte[0][0], name.encode()).decode()


async def publish(js, source, reminders):
    """Publishes a set until it is stored. Bellhop knows a source's set by its `Nats-Msg-Id`, so a repeat does no harm."""
    body = json.dumps({"reminders": reminders}).encode()
    headers = {"Nats-Msg-Id": f"{source}-{hashlib.sha256(body).hexdigest()}"}
    for attempt in range(ATTEMPTS):
        try:
            return await js.publish(f"bellhop.sets.{escape(source)}", body, timeout=5, headers=headers)
        except (nats.errors.Error, NoStreamResponseError) as error:
            # A set that JetStream refuses, since it is too large or the disk is full, is for people to see.
            if isinstance(error, (APIError, nats.errors.MaxPayloadError)) or attempt == ATTEMPTS - 1:
                raise
            print(f"not confirmed ({error!r}), trying again", file=sys.stderr)
            await asyncio.sleep(0.1 * 2**attempt)


async def main(source):
    reminders = [json.loads(line) for line in sys.stdin if line.strip()]
    nc = await nats.connect(**NATS, name=f"publisher {source}")
    for start in range(0, len(reminders), MOST_IN_A_SET):  # one after the other, so that they stay in order
        part = reminders[start : start + MOST_IN_A_SET]
        ack = await publish(nc.jetstream(), source, part)
        print(f"set {ack.seq}: {len(part)} reminders")
    await nc.close()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    asyncio.run(main(sys.argv[1]))
