import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { Deliveries } from "../dist/deliveries.js";
import { Pending } from "../dist/pending.js";

const MINUTE = 60_000;
const OPTIONS = {
  capacity: 3,
  answerWithin: 1_500,
  holdFor: MINUTE,
  rememberFor: 10 * MINUTE,
  remember: 2,
};
let queue, pending, connected, answers;

function start(options = {}) {
  queue = new Deliveries();
  connected = new Set(["alice", "bob"]);
  answers = {};
  pending = new Pending(queue, (user) => connected.has(user), { ...OPTIONS, ...options });
}

const reminder = (id, user) => ({
  id,
  user,
  source: "s",
  content: id,
  published_at: "2026-11-22T08:00:00Z",
});

/** Brings a request with the reminders of these ids at this time. */
function ask(name, ids, { user = "alice", now = 0 } = {}) {
  const reminders = ids.map((id) => reminder(id, user));
  pending.request(JSON.stringify({ reminders }), now, (answer) => (answers[name] = answer));
}

const refused = (reason, ...ids) => ({
  refused: ids.map((id) => ({ id, source: "s", user: "alice", reason })),
});
const take = async () => (await queue.next()).value;

beforeEach(() => start());

test("a request is answered when all is decided", async () => {
  ask("first", ["1", "2"]);
  assert.equal((await take()).accept(), true);
  assert.deepEqual(answers, {});
  assert.equal((await take()).accept(), true);
  assert.deepEqual(answers, { first: {} });
});

test("a second decision does not count", async () => {
  ask("first", ["1"]);
  const delivery = await take();
  assert.deepEqual([delivery.accept(), delivery.later()], [true, false]);
});

test("a repeat is accepted and not handed over", async () => {
  ask("first", ["1"]);
  (await take()).accept();
  ask("second", ["1", "2"]);
  const next = await take();
  assert.equal(next.reminder.id, "2");
  next.accept();
  assert.deepEqual(answers.second, {});
});

test("a repeat that waits answers both requests", async () => {
  ask("first", ["1"]);
  ask("second", ["1"]);
  (await take()).accept();
  assert.deepEqual(answers, { first: {}, second: {} });
});

test("a stranger is refused at once", () => {
  ask("first", ["1"], { user: "carol" });
  assert.equal(answers.first.refused[0].reason, "not_connected");
});

test("what has no room is busy, with all behind it", async () => {
  ask("first", ["1", "2", "3", "4", "5"]);
  for (let n = 0; n < 3; n++) (await take()).accept();
  assert.deepEqual(answers.first, refused("busy", "4", "5"));
});

test("a refusal takes back what is behind it", async () => {
  ask("first", ["1", "2", "3"]);
  (await take()).accept();
  (await take()).later();
  assert.deepEqual(answers.first, refused("busy", "2", "3"));
  ask("second", ["2"]);
  assert.equal((await take()).reminder.id, "2", "3 has left the queue");
});

test("a user who leaves refuses what is queued", async () => {
  ask("first", ["1", "2"]);
  const taken = await take();
  pending.disconnected(new Set(["alice"]));
  assert.deepEqual(answers, {});
  taken.accept();
  assert.deepEqual(answers.first, refused("not_connected", "2"));
});

test("after its deadline a request is busy", async () => {
  ask("first", ["1", "2"]);
  const held = await take();
  pending.expire(1_499);
  assert.deepEqual(answers, {});
  pending.expire(1_500);
  assert.deepEqual(answers.first, refused("busy", "1", "2"));
  ask("second", ["1", "2"], { now: 1_600 });
  assert.equal(held.accept(), true, "its decision answers the new request");
  (await take()).accept();
  assert.deepEqual(answers.second, {});
});

test("a reminder held for too long comes again", async () => {
  ask("first", ["1"]);
  const held = await take();
  pending.expire(1_500);
  pending.clean(MINUTE - 1);
  ask("second", ["1"], { now: MINUTE - 1 });
  pending.expire(2 * MINUTE);
  pending.clean(2 * MINUTE);
  assert.equal(held.accept(), false);
  ask("third", ["1"], { now: 2 * MINUTE });
  assert.equal((await take()).reminder.id, "1");
});

test("as many as agreed are remembered, and not all", async () => {
  start({ capacity: 10 });
  const held = (ask("held", ["held"]), await take());
  for (const id of ["1", "2", "3", "4", "5", "6", "7", "8"]) {
    ask(id, [id]);
    (await take()).accept();
  }
  ask("late", ["7", "8"]);
  assert.deepEqual(answers.late, {});
  ask("early", ["1"]);
  assert.equal((await take()).reminder.id, "1");
  ask("again", ["held"]);
  held.accept();
  assert.deepEqual(answers.again, {}, "what is undecided is not forgotten");
});

test("accepted reminders are forgotten after a while", async () => {
  ask("first", ["1"]);
  (await take()).accept();
  pending.clean(0);
  pending.clean(10 * MINUTE - 1);
  ask("second", ["1"]);
  assert.deepEqual(answers.second, {});
  pending.clean(10 * MINUTE);
  pending.clean(20 * MINUTE);
  ask("third", ["1"]);
  assert.equal((await take()).reminder.id, "1");
});

test("without memory each request is handed over", async () => {
  start({ remember: 0 });
  ask("first", ["1"]);
  (await take()).accept();
  ask("second", ["1"]);
  (await take()).accept();
  assert.deepEqual(answers, { first: {}, second: {} });
});

test("a batch is the rest of one request", async () => {
  ask("first", ["1", "2"]);
  ask("second", ["3"]);
  (await take()).accept();
  const ids = (batch) => batch.map((delivery) => delivery.reminder.id);
  assert.deepEqual(ids(await queue.nextBatch()), ["2"]);
  assert.deepEqual(ids(await queue.nextBatch()), ["3"]);
});

test("the iterator ends behind what waits", async () => {
  ask("first", ["1"]);
  queue.end();
  assert.equal((await take()).reminder.id, "1");
  assert.equal((await queue.next()).done, true);
  assert.equal(await queue.nextBatch(), undefined);
});

test("a request that is none throws", () => {
  for (const text of [
    "[]",
    "{}",
    '{"reminders":[{"id":"1"}]}',
    '{"reminders":[null]}',
    "no JSON",
  ]) {
    assert.throws(() => pending.request(text, 0, assert.fail), undefined, text);
  }
});

test("the text of a reminder is as it came", async () => {
  const one =
    '{"id": "1", "source":"s","user":"alice", "content":"a\\"}],","published_at":"","data": 12345678901234567890}';
  pending.request(
    `{"x":[{}], "reminders" : [ ${one} , ${one.replace('"1"', '"2"')}]}`,
    0,
    () => {},
  );
  assert.equal((await take()).json, one);
  assert.equal((await take()).json, one.replace('"1"', '"2"'));
});
