// A whole app server with a page: `node web/server.mjs INSTANCE [PORT]`, then open http://127.0.0.1:8080/?user=alice.
//
// Each open page is a terminal of its user, over Server-Sent Events. Who the user is comes from the address here; put your own
// sign-in in its place. NATS_URL says where NATS is.
import { readFile } from "node:fs/promises";
import { serve } from "@hono/node-server";
import { Hono } from "hono";
import { streamSSE } from "hono/streaming";
import { AppServer, connect } from "@bellhop/client";

const [instance = "web-1", port = "8080"] = process.argv.slice(2);
const app = await AppServer.start(await connect(), instance);
const pages = new Map(); // user → open pages
const html = await readFile(new URL("page.html", import.meta.url), "utf8");

const web = new Hono();
web.get("/", (request) => request.html(html));
web.get("/reminders", (request) =>
  streamSSE(request, async (page) => {
    const user = request.req.query("user");
    const closed = new Promise((resolve) => page.onAbort(resolve));
    pages.set(user, (pages.get(user) ?? new Set()).add(page));
    app.connect(user);
    await page.writeSSE({ event: "connected", data: instance });
    await closed;
    app.disconnect(user);
    pages.get(user).delete(page);
  }),
);

/** Shows a reminder on all pages of its user. It is safe when it is written to one of them. */
async function show(delivery) {
  const { reminder, json } = delivery;
  const writes = [...(pages.get(reminder.user) ?? [])].map((page) =>
    page.writeSSE({ event: "reminder", data: json }),
  );
  await Promise.any(writes).then(
    () => delivery.accept(),
    () => delivery.later(),
  );
}

const server = serve({ fetch: web.fetch, hostname: "127.0.0.1", port: Number(port) }, (address) =>
  console.log(`open http://127.0.0.1:${address.port}/?user=alice`),
);
for (const signal of ["SIGINT", "SIGTERM"]) {
  process.once(signal, async () => {
    await app.drain();
    server.closeAllConnections();
    process.exit();
  });
}
for await (const delivery of app.deliveries) await show(delivery);
