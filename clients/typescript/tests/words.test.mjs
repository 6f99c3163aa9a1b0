import assert from "node:assert/strict";
import { test } from "node:test";
import { BellhopError, connect } from "../dist/index.js";
import { toJson } from "../dist/draft.js";
import { members } from "../dist/json.js";
import { token } from "../dist/names.js";

test("names are escaped as tokens", () => {
  const tokens = {
    alice: "alice",
    "a.b@c": "a=2Eb=40c",
    张三: "=E5=BC=A0=E4=B8=89",
    "a-_9 ": "a-_9=20",
  };
  for (const [name, expected] of Object.entries(tokens))
    assert.equal(token("user", name), expected);
});

test("what is no name is refused", () => {
  for (const name of [
    "",
    "a\nb",
    "\u0085",
    "x".repeat(129),
    "é".repeat(65),
    "\ud83d",
    7,
    undefined,
  ]) {
    const isInvalid = (error) => error instanceof BellhopError && error.kind === "invalid";
    assert.throws(() => token("user", name), isInvalid, JSON.stringify(name));
  }
  assert.equal(token("user", "x".repeat(128)).length, 128);
});

test("members are divided as they are written", () => {
  const json = '{"a" : [1, {"b":"}"}] , "\\u0062\\"":"x\\\\", "c":1e2,"d":{},"e":[ ]}';
  const expected = { a: '[1, {"b":"}"}]', 'b"': '"x\\\\"', c: "1e2", d: "{}", e: "[ ]" };
  assert.deepEqual(Object.fromEntries(members(json)), expected);
  assert.deepEqual([...members(' [1,"a,b",[2,3]] ').values()], ["1", '"a,b"', "[2,3]"]);
  assert.deepEqual([...members("[ ]").values()], []);
});

const nested = (levels) => JSON.parse("[".repeat(levels) + "]".repeat(levels));
const draft = { id: "1", user: "alice", content: "x" };

test("a reminder that Bellhop would refuse is refused", () => {
  const faults = {
    invalid_id: [{ id: "" }, { id: "x".repeat(257) }, { id: "a\0" }],
    invalid_user: [{ user: "" }, { user: undefined }, { user: "x".repeat(129) }],
    invalid_title: [{ title: "x".repeat(1025) }, { title: 7 }],
    invalid_content: [
      { content: "" },
      { content: undefined },
      { content: "é".repeat(32_769) },
      { content: "\udc00" },
    ],
    invalid_tag: [{ tags: [""] }],
    too_many_tags: [{ tags: Array(17).fill("t") }],
    invalid_priority: [{ priority: "hot" }],
    invalid_deliver_at: [
      { deliver_at: "soon" },
      { deliver_at: new Date(NaN) },
      { deliver_at: "2263-01-01T00:00:00Z" },
      { deliver_at: "2026-11-22T08:00:00Z", expires_at: "2026-11-22T08:00:00Z" },
    ],
    invalid_expires_at: [{ expires_at: "2026-11-22" }],
    invalid_data: [
      { data: nested(65) },
      { data: { a: "\ud83d" } },
      { data: Infinity },
      { dataJson: "1e400" },
    ],
    reminder_too_large: [{ data: "x".repeat(256 << 10) }],
  };
  for (const [code, drafts] of Object.entries(faults)) {
    for (const fault of drafts) {
      const isRight = (error) => error instanceof BellhopError && error.code === code;
      assert.throws(
        () => toJson({ ...draft, ...fault }),
        isRight,
        `${code} ${JSON.stringify(fault)}`,
      );
    }
  }
});

test("a reminder at every bound is accepted", () => {
  const most = {
    ...draft,
    id: "x".repeat(256),
    title: "x".repeat(1024),
    content: "é".repeat(32_768),
    tags: Array(16).fill("t"),
    priority: "urgent",
    deliver_at: new Date(0),
    expires_at: "2262-01-01T00:00:01+01:00",
    data: nested(64),
  };
  assert.equal(JSON.parse(toJson(most)).deliver_at, "1970-01-01T00:00:00.000Z");
});

test("data as text keeps its digits", () => {
  const json = toJson({ ...draft, dataJson: '{"n":12345678901234567890}' });
  assert.equal(members(json).get("data"), '{"n":12345678901234567890}');
});

test("an address that is none is refused", async () => {
  for (const address of ["nats://", "a b", "nats://h:x"]) {
    await assert.rejects(connect(address), { kind: "invalid" }, address);
  }
});
