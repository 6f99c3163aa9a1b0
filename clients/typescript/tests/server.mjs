import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect } from "../dist/index.js";

const FETCHED = new URL(
  "../../../target/tools/nats-server-2.15.1/bin/nats-server",
  import.meta.url,
);

/**
 * Starts a nats-server with JetStream: named by BELLHOP_NATS_SERVER, in target/tools, or on the PATH. `websocket` is the address
 * for WebSockets.
 */
export async function startServer() {
  const directory = await mkdtemp(join(tmpdir(), "bellhop-client-"));
  const [port, webPort] = [await freePort(), await freePort()];
  const configuration = `
    listen: "127.0.0.1:${port}"
    websocket { listen: "127.0.0.1:${webPort}", no_tls: true }
    jetstream { store_dir: "${directory}" }
  `;
  await writeFile(join(directory, "nats.conf"), configuration);
  const found = existsSync(FETCHED) ? FETCHED.pathname : "nats-server";
  const program = process.env.BELLHOP_NATS_SERVER ?? found;
  const server = spawn(program, ["-c", join(directory, "nats.conf")], { stdio: "ignore" });
  const stop = async () => {
    const ended = new Promise((resolve) => server.once("exit", resolve));
    server.kill();
    await ended;
    await rm(directory, { recursive: true, force: true });
  };
  const [url, websocket] = [`nats://127.0.0.1:${port}`, `ws://127.0.0.1:${webPort}`];
  for (const deadline = Date.now() + 30_000; ;) {
    try {
      await (await connect(url)).close();
      return { url, websocket, stop };
    } catch (error) {
      if (Date.now() > deadline) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

function freePort() {
  return new Promise((resolve) => {
    const probe = createServer().listen(0, "127.0.0.1", () => {
      const { port } = probe.address();
      probe.close(() => resolve(port));
    });
  });
}
