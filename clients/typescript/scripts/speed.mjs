// Measures how many reminders an app server takes, beside two that are written by hand on the NATS client:
//
//     npm run speed
//
// `bare` reads the JSON of each request, shows each reminder, and accepts all. `by hand` also does what the contract asks for:
// it refuses strangers, bounds what waits, and drops repeats. The client's application shows the same, and takes reminders one
// by one, or a request at once (`batches`). A process of its own sends the same stream of deliveries to all, in turns, with up
// to 800 reminders under way. The figure to compare is the processor time for a reminder, which does not depend on what else the machine does. It
// needs a nats-server: in target/tools, on the PATH, or named by BELLHOP_NATS_SERVER.

import { fork } from "node:child_process";
import { jetstreamManager } from "@nats-io/jetstream";
import { AppServer, connect } from "../dist/index.js";
import { startServer } from "../tests/server.mjs";

const [USERS, SIZES, UNDER_WAY, ROUNDS, SECONDS] = [1_000, [1, 20, 100], 800, 5, 0.5];
const users = Array.from({ length: USERS }, (_, n) => `user-${n}`);

const connected = new Set(users);

/** A request as Bellhop sends it. No reminder comes twice. */
let published = 0;
const reminder = (n) =>
  `{"id":"inv-${n}","source":"billing","set":"${n}","user":"user-${n % USERS}","title":"Invoice due","content":"Invoice ${n} ` +
  `is due on Friday. Please pay it in time, or call us if there is a problem.","tags":["billing"],"priority":"normal",` +
  `"published_at":"2026-11-22T08:00:00.123Z","data":{"invoice":${n},"amount":"120.00"}}`;
const request = (size) =>
  `{"reminders":[${Array.from({ length: size }, () => reminder(++published)).join()}]}`;

/** The sender: keeps requests under way to a subject for a while. */
async function send(url) {
  const nc = await connect(url);
  process.on("message", async ({ subject, size }) => {
    const end = Date.now() + SECONDS * 1_000;
    let accepted = 0;
    const worker = async () => {
      while (Date.now() < end) {
        const answer = await nc.request(subject, request(size), { timeout: 10_000 });
        if (answer.string() !== "{}") throw new Error(`not accepted: ${answer.string()}`);
        accepted += size;
      }
    };
    await Promise.all(Array.from({ length: UNDER_WAY / Math.max(size, 10) }, worker));
    process.send(accepted);
  });
}

async function measure() {
  const { url, stop } = await startServer();
  const nc = await connect(url);
  const jsm = await jetstreamManager(nc);
  await jsm.streams.add({ name: "KV_bellhop_routes", subjects: ["$KV.bellhop_routes.>"] });
  const sender = fork(process.argv[1], ["send", url]);

  nc.subscribe("bare.deliver", {
    callback: (_, msg) => {
      for (const { content } of msg.json().reminders) take(content);
      msg.respond("{}");
    },
  });
  const byHand = new ByHand();
  nc.subscribe("byhand.deliver", {
    callback: (_, msg) => {
      const refused = msg
        .json()
        .reminders.map((one) => byHand.take(one))
        .filter(Boolean);
      msg.respond(JSON.stringify(refused.length > 0 ? { refused } : {}));
    },
  });
  const one = await AppServer.start(nc, "app-1", { subject: "client" });
  await one.connect(users);
  void (async () => {
    for await (const delivery of one.deliveries) {
      take(delivery.reminder.content);
      delivery.accept();
    }
  })();
  const all = await AppServer.start(nc, "app-2", { subject: "batches" });
  await all.connect(users);
  void (async () => {
    for (let batch; (batch = await all.deliveries.nextBatch());) {
      for (const delivery of batch) {
        take(delivery.reminder.content);
        delivery.accept();
      }
    }
  })();

  const turn = async (subject, size) => {
    const [began, before] = [performance.now(), process.cpuUsage()];
    sender.send({ subject, size });
    const accepted = await new Promise((resolve) => sender.once("message", resolve));
    const { user, system } = process.cpuUsage(before);
    return {
      cpu: (user + system) / accepted,
      rate: (accepted / (performance.now() - began)) * 1_000,
    };
  };
  for (const size of SIZES) {
    const turns = { bare: [], byhand: [], client: [], batches: [] };
    for (let round = 0; round <= ROUNDS; round++) {
      for (const [name, results] of Object.entries(turns)) {
        const result = await turn(`${name}.deliver`, size);
        if (round > 0) results.push(result); // The first one warms up.
      }
    }
    const bare = median(turns.bare.map(({ cpu }) => cpu));
    console.log(`${size} in a request:`);
    for (const [name, results] of Object.entries(turns)) {
      const [cpu, rate] = ["cpu", "rate"].map((what) => median(results.map((one) => one[what])));
      const share = `${((bare / cpu) * 100).toFixed(0)} % of bare`;
      console.log(
        `  ${name.padEnd(8)} ${cpu.toFixed(2)} µs for a reminder (${share}), ${Math.round(rate)}/s`,
      );
    }
  }
  sender.kill();
  await Promise.all([one.abandon(), all.abandon()]);
  await nc.close();
  await stop();
  process.exit();
}

/** What an app server does that is copied from the protocol page. */
class ByHand {
  accepted = new Set();
  waiting = [];

  take({ source, id, user, content }) {
    const key = JSON.stringify([source, id, user]);
    if (!connected.has(user)) return { source, id, user, reason: "not_connected" };
    if (this.accepted.has(key)) return undefined;
    if (this.waiting.length >= 10_000) return { source, id, user, reason: "busy" };
    if (this.waiting.push(content) === 1)
      queueMicrotask(() => this.waiting.splice(0).forEach(take));
    this.accepted.add(key);
    if (this.accepted.size > 40_000) this.accepted = new Set([key]);
    return undefined;
  }
}

let taken = 0;
const take = (content) => (taken += content.length);
const median = (values) => values.sort((a, b) => a - b)[values.length >> 1];

await (process.argv[2] === "send" ? send(process.argv[3]) : measure());
