import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import WebSocket from "ws";
import { AppServer, connect } from "../dist/index.js";
import { startServer } from "./server.mjs";

let server;
before(async () => (server = await startServer()));
after(() => server.stop());

/** Brings a reminder to an app server on this connection, as Bellhop does. */
async function takes(nc, instance) {
  const bellhop = await connect(server.url);
  const app = await AppServer.start(nc, instance);
  app.connect("alice");
  const reminder = { id: "1", source: "s", user: "alice", content: "x", published_at: "" };
  const answer = bellhop.request(
    `bellhop.app.${instance}.deliver`,
    JSON.stringify({ reminders: [reminder] }),
  );
  const { value: delivery } = await app.deliveries.next();
  delivery.accept();
  assert.equal((await answer).string(), "{}");
  const heartbeat = JSON.stringify({ users: ["alice", "bob"] });
  const connected = await bellhop.request(`bellhop.app.${instance}.heartbeat`, heartbeat);
  assert.deepEqual(connected.json(), { connected: ["alice"] });
  await app.abandon();
  await Promise.all([nc.close(), bellhop.close()]);
}

test("an app server works over a WebSocket", async () => {
  globalThis.WebSocket ??= WebSocket; // Node has one of its own from version 22 on.
  await takes(await connect(server.websocket), "app-1");
});

test("of several addresses one is enough", async () => {
  await takes(await connect(`nats://127.0.0.1:1, ${server.url}`), "app-2");
});

test("a closed connection ends the iterator with an error", async () => {
  const nc = await connect(server.url);
  const app = await AppServer.start(nc, "app-3");
  const next = app.deliveries.next();
  await nc.close();
  await assert.rejects(next, { kind: "closed" });
  await assert.rejects(app.connect("alice"), { kind: "closed" });
});
