// An app server: `node app_server.mjs INSTANCE [USER]...`. The users are connected to it. The lines `+carol` and `-alice` on
// standard input connect and disconnect others. Each reminder is printed as a line of JSON. NATS_URL says where NATS is.
import { once } from "node:events";
import { createInterface } from "node:readline";
import { AppServer, connect } from "@bellhop/client";

const [instance, ...users] = process.argv.slice(2);
const app = await AppServer.start(await connect(), instance);
app.connect(users);
createInterface({ input: process.stdin }).on("line", ([sign, ...user]) =>
  sign === "+" ? app.connect(user.join("")) : app.disconnect(user.join("")),
);
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => app.drain());
for await (const delivery of app.deliveries) {
  if (!process.stdout.write(`${delivery.json}\n`)) await once(process.stdout, "drain");
  delivery.accept();
}
process.exit();
