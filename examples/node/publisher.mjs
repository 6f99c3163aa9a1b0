// A business system: `node publisher.mjs SOURCE < REMINDERS`. Each line of standard input is a reminder, as JSON; `user` and
// `content` must be there. Exit code 0 says that JetStream has stored all of them. After anything else run it again with the
// same lines: the same `id` is the same reminder. NATS_URL says where NATS is.
import { createInterface } from "node:readline";
import { connect, Publisher } from "@bellhop/client";

const nats = await connect();
const publisher = new Publisher(nats, process.argv[2]);
const stored = [];
for await (const line of createInterface({ input: process.stdin })) {
  stored.push((await publisher.enqueue(JSON.parse(line))).stored);
}
console.log(`${(await Promise.all(stored)).length} reminders are stored`);
await nats.close();
