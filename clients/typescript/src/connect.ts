import {
  hasWsProtocol,
  wsconnect,
  type ConnectionOptions,
  type NatsConnection,
} from "@nats-io/nats-core";
import { BellhopError } from "./errors.js";

const environment = (): Record<string, string | undefined> =>
  typeof process === "object" ? process.env : {};

/**
 * Connects to NATS, with settings that suit a process which runs for long: it reconnects until it is closed, also after the
 * server has refused it for a while, and notices a dead connection within a minute.
 *
 * Without arguments it connects to `NATS_URL`, else to `nats://127.0.0.1:4222`. An address may be a list with commas, and have
 * a user and a password, or a token, in it; else `NATS_USER` and `NATS_PASSWORD` count. Addresses that begin with `ws://` or `wss://` use a
 * WebSocket, which also works in browsers and in Deno; others need Node or Bun.
 *
 * You may as well pass your own connection to the classes of this package. Give it `maxReconnectAttempts: -1` and
 * `ignoreAuthErrorAbort: true`: without these the NATS client closes for good in an outage.
 *
 * @param options addresses, or options of the NATS client, which replace the settings above
 */
export async function connect(options: string | ConnectionOptions = {}): Promise<NatsConnection> {
  const { servers, ...rest } = typeof options === "string" ? { servers: options } : options;
  const { NATS_URL = "nats://127.0.0.1:4222", NATS_USER, NATS_PASSWORD } = environment();
  const addresses = [servers ?? NATS_URL].flat().flatMap((list) => list.split(","));
  const urls = addresses.map((address) => parse(address.trim()));
  const settings: ConnectionOptions = {
    ...(credentialsOf(urls) ?? { user: NATS_USER, pass: NATS_PASSWORD }),
    maxReconnectAttempts: -1,
    ignoreAuthErrorAbort: true,
    reconnectTimeWait: 1_000,
    pingInterval: 20_000,
    ...rest,
    servers: urls.map((url) => `${url.protocol}//${url.host}${url.pathname.replace(/\/$/, "")}`),
  };
  if (hasWsProtocol(settings)) return await wsconnect(settings);
  const node = await import("@nats-io/transport-node");
  return await node.connect(settings);
}

function parse(address: string): URL {
  const url = address.includes("://") ? address : `nats://${address}`;
  if (URL.canParse(url) && new URL(url).host !== "") return new URL(url);
  const text = JSON.stringify(address);
  throw new BellhopError(
    "invalid",
    `${text} is not an address; write one such as nats://host:4222`,
  );
}

/** Returns the user and password, or the token, of the first address that has one. */
function credentialsOf(
  urls: URL[],
): Pick<ConnectionOptions, "user" | "pass" | "token"> | undefined {
  const url = urls.find(({ username }) => username !== "");
  if (!url) return undefined;
  const [user, pass] = [decodeURIComponent(url.username), decodeURIComponent(url.password)];
  return pass === "" ? { token: user } : { user, pass };
}
