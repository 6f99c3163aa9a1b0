#!/usr/bin/env bash
# In binary mode, an event that JavaScript's SDK of CloudEvents writes has another id in Python's.
#
# Surprise: the HTTP binding of CloudEvents 1.0 (section 3.1.3.2) says that values of headers are
#   percent-encoded. Python's SDK does so, and decodes once. JavaScript's SDK (and the NATS JetStream
#   binding of Go's) writes values as they are, and decodes nothing. So two events of a publisher in
#   JavaScript with the ids `50%25` and `50%` are one event, `50%`, to a reader in Python, which
#   drops the second as a repeat.
# Why it matters: repeats are known by `source` and `id`. A receiver that decodes, as it should,
#   makes one event of two. One that does not knows an event in binary mode by another name than in
#   structured mode.
# Source: https://github.com/cloudevents/spec/blob/main/cloudevents/bindings/http-protocol-binding.md
#   seen on cloudevents 10.0.0 (npm) and 2.2.0 (PyPI). Nearby: cloudevents/sdk-go issue 1334.
# Expected: what one SDK writes, the other reads. Seen: ids change. This script fails if that
#   changes.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
export PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1
python3 -m pip install -qq --target "$dir/lib" cloudevents==2.2.0
(cd "$dir" && npm install --no-audit --no-fund --loglevel=error --ignore-scripts cloudevents@10.0.0 >/dev/null)
cat >"$dir/write.mjs" <<'JS'
import { CloudEvent, HTTP } from "cloudevents";
const events = ["50%25", "50%"].map((id) => new CloudEvent({ id, source: "/billing", type: "t", data: {} }));
console.log(JSON.stringify(events.map((event) => HTTP.binary(event).headers)));
JS
cat >"$dir/read.py" <<'PY'
import json, sys
from cloudevents.core.bindings import http
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

def read(headers):
    return http.from_binary(http.HTTPMessage(headers, b"{}"), JSONFormat()).get_id()

written = json.load(sys.stdin)
found = [(headers["ce-id"], read(headers)) for headers in written]
own = http.to_binary(CloudEvent({"id": "50%25", "source": "/billing", "type": "t"}, {}), JSONFormat())
print(f"by JavaScript to Python: {found}; by Python to Python: {read(own.headers)}")
is_so = found == [("50%25", "50%"), ("50%", "50%")] and read(own.headers) == "50%25"
sys.exit(0 if is_so else 1)
PY
(cd "$dir" && node write.mjs) | PYTHONPATH="$dir/lib" python3 "$dir/read.py" ||
    { echo "changed: no longer as described" >&2; exit 1; }
echo "as described: two ids that JavaScript's SDK writes are one to Python's"
