// A business system that publishes reminders to Bellhop: each line of standard input is one, as JSON.
//
//     echo '{"id": "inv-981", "user": "alice", "content": "Invoice 981 is due"}' | node publisher.mjs billing
//
// `user` and `content` must be there; docs/protocol.md has the other fields. All lines are one set, or several where they
// are many. Exit code 0 says that JetStream has stored every set: Bellhop will not lose it. After anything else run it
// again with the same lines: the same `id` is the same reminder, however often it is published. NATS_URL, NATS_USER and
// NATS_PASSWORD say where NATS is and who asks.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { jetstream, JetStreamApiError } from "@nats-io/jetstream";
import { connect, InvalidArgumentError } from "@nats-io/transport-node";

const MOST_IN_A_SET = 100;
const ATTEMPTS = 8; // with pauses of 0.1 s, 0.2 s, …: about 25 s of a server that is away
const { NATS_URL = "nats://127.0.0.1:4222", NATS_USER, NATS_PASSWORD } = process.env;
const NATS = { servers: NATS_URL, user: NATS_USER, pass: NATS_PASSWORD };

/** A name as one token of a subject. */
const escape = (name) =>
  Buffer.from(name).toString("latin1")
    .replace(/[^A-Za-z0-9_-]/g, (byte) => "=" + byte.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0"));

/** Publishes a set until it is stored. Bellhop knows a source's set by its `Nats-Msg-Id`, so a repeat does no harm. */
async function publish(js, source, reminders) {
  const body = JSON.stringify({ reminders });
  const msgID = `${source}-${createHash("sha256").update(body).digest("hex")}`;
  for (let attempt = 1; ; attempt++) {
    try {
      return await js.publish(`bellhop.sets.${escape(source)}`, body, { msgID, timeout: 5_000 });
    } catch (error) {
      // A set that JetStream refuses, since it is too large or the disk is full, is for people to see.
      const isRefused = error instanceof JetStreamApiError || error instanceof InvalidArgumentError;
      if (isRefused || attempt === ATTEMPTS) throw error;
      console.error(`not confirmed (${error}), trying again`);
      await sleep(50 * 2 ** attempt);
    }
  }
}

const [source] = process.argv.slice(2);
if (!source) throw new Error("usage: node publisher.mjs SOURCE < REMINDERS");
const reminders = readFileSync(0, "utf8").split("\n").filter((line) => line.trim()).map((line) => JSON.parse(line));
const nc = await connect({ ...NATS, name: `publisher ${source}` });
for (let start = 0; start < reminders.length; start += MOST_IN_A_SET) { // one after the other, so that they stay in order
  const part = reminders.slice(start, start + MOST_IN_A_SET);
  const { seq } = await publish(jetstream(nc), source, part);
  console.log(`set ${seq}: ${part.length} reminders`);
}
await nc.close();
