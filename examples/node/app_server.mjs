// An app server for Bellhop, complete: routes, heartbeats, deliveries. Copy it, and put your connections where terminals are.
//
//     node app_server.mjs app-1 alice bob
//
// The users named are connected to it. Lines on standard input connect and disconnect others: `+carol`, `-alice`. Each
// reminder that is accepted is printed as a line of JSON. NATS_URL, NATS_USER and NATS_PASSWORD say where NATS is and who asks.

import { once } from "node:events";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { jetstream, JetStreamApiError } from "@nats-io/jetstream";
import { connect, headers } from "@nats-io/transport-node";

const MOST_WAITING = 1_000; // reminders accepted and not shown yet; what comes then is told `busy`
const MOST_REMEMBERED = 100_000; // accepted reminders that a repeat is known by
const WRONG_LAST_SEQUENCE = 10071;
const { NATS_URL = "nats://127.0.0.1:4222", NATS_USER, NATS_PASSWORD } = process.env;
const NATS = { servers: NATS_URL, user: NATS_USER, pass: NATS_PASSWORD };

/** A name as one token of a subject. */
const escape = (name) =>
  Buffer.from(name).toString("latin1")
    .replace(/[^A-Za-z0-9_-]/g, (byte) => "=" + byte.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0"));

class AppServer {
  terminals = new Map(); // user → open terminals: who is connected
  revisions = new Map(); // user → revision of the route that was put
  writing = Promise.resolve(); // routes are written one after the other
  waiting = []; // accepted reminders
  showing = Promise.resolve();
  accepted = new Set(); // their keys, the oldest first

  constructor(name) {
    this.name = name;
  }

  async start() {
    this.nc = await connect({ ...NATS, name: this.name, maxReconnectAttempts: -1 });
    this.js = jetstream(this.nc);
    // A route promises that somebody answers, so the subscriptions come first.
    const verbs = { heartbeat: (request) => this.heartbeat(request), deliver: (request) => this.deliver(request) };
    for (const [verb, answer] of Object.entries(verbs)) {
      const callback = (error, msg) => error ? console.error(`${error}`) : this.answer(msg, answer);
      this.nc.subscribe(`bellhop.app.${escape(this.name)}.${verb}`, { callback });
    }
    await this.nc.flush();
    this.watch();
  }

  /** Nobody is connected from here on. What was accepted is shown before this ends. */
  async stop() {
    this.terminals.clear();
    this.again();
    await this.writing;
    await this.nc.drain();
    await this.showing;
  }

  /** A terminal of the user's comes, 1, or goes, -1. The table is first: reminders come as soon as the route is there. */
  terminal(user, change) {
    const open = (this.terminals.get(user) ?? 0) + change;
    if (open > 0) this.terminals.set(user, open);
    else this.terminals.delete(user);
    this.writeRoute(user);
  }

  /** Writes all routes anew: Bellhop may have dropped some while the connection was lost. */
  again() {
    for (const user of new Set([...this.terminals.keys(), ...this.revisions.keys()])) this.writeRoute(user);
  }

  async watch() {
    for await (const { type } of this.nc.status()) if (type === "reconnect") this.again();
  }

  /** Makes a route what `terminals` says, when it is its turn: whoever comes and goes has the last word. */
  writeRoute(user) {
    const key = `$KV.bellhop_routes.${escape(user)}.${escape(this.name)}`;
    const write = async () => {
      const lastSubjectSequence = this.revisions.get(user);
      if (this.terminals.has(user)) {
        this.revisions.set(user, (await this.js.publish(key)).seq);
      } else if (lastSubjectSequence) {
        const deleting = headers();
        deleting.set("KV-Operation", "DEL");
        deleting.set("Nats-TTL", "1h");
        await this.js.publish(key, "", { headers: deleting, expect: { lastSubjectSequence } });
        this.revisions.delete(user);
      }
    };
    const retry = async (error) => {
      // A route that was put or deleted by somebody else since is not ours to delete.
      if (error instanceof JetStreamApiError && error.code === WRONG_LAST_SEQUENCE) return this.revisions.delete(user);
      console.error(`route of ${user}: ${error}, trying again`);
      await sleep(1_000);
      this.writeRoute(user);
    };
    this.writing = this.writing.then(write).catch(retry);
  }

  answer(msg, answer) {
    try {
      msg.respond(JSON.stringify(answer(msg.json())));
    } catch (error) {
      console.error(`cannot read what came on ${msg.subject}: ${error}`);
    }
  }

  heartbeat({ users }) {
    return { connected: users.filter((user) => this.terminals.has(user)) };
  }

  deliver({ reminders }) { // all are read before one is accepted
    const isText = ({ source, id, user, content }) => [source, id, user, content].every((it) => typeof it === "string");
    if (!reminders.every(isText)) throw new TypeError("not a reminder");
    const answers = reminders.map((one) => ({ source: one.source, id: one.id, user: one.user, reason: this.take(one) }));
    const refused = answers.filter(({ reason }) => reason);
    return refused.length > 0 ? { refused } : {};
  }

  /** Accepts a reminder, or says why not. Nothing is awaited in here, so that after one that is refused as busy no later
   * one of the same request is accepted: their order stays. */
  take(reminder) {
    const key = JSON.stringify([reminder.source, reminder.id, reminder.user]);
    if (!this.terminals.has(reminder.user)) return "not_connected";
    if (this.accepted.has(key)) return undefined; // a repeat: accepted, and shown once
    if (this.waiting.length >= MOST_WAITING) return "busy";
    if (this.waiting.push(reminder) === 1) this.showing = this.showing.then(() => this.show());
    this.accepted.add(key);
    if (this.accepted.size > MOST_REMEMBERED) this.accepted.delete(this.accepted.values().next().value);
  }

  /** Stands for the connections to users' terminals. */
  async show() {
    for (; this.waiting.length > 0; this.waiting.shift()) {
      if (!process.stdout.write(JSON.stringify(this.waiting[0]) + "\n")) await once(process.stdout, "drain");
    }
  }
}

const [name, ...users] = process.argv.slice(2);
if (!name) throw new Error("usage: node app_server.mjs INSTANCE [USER]...");
const app = new AppServer(name);
await app.start();
users.forEach((user) => app.terminal(user, 1));
createInterface({ input: process.stdin }).on("line", (line) => {
  if (/^[+-]/.test(line)) app.terminal(line.slice(1).trim(), line[0] === "+" ? 1 : -1);
});
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => app.stop().then(() => process.exit()));
