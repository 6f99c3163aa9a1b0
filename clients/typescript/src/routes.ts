import { JetStreamApiError, jetstream, type JetStreamClient } from "@nats-io/jetstream";
import { headers, type NatsConnection } from "@nats-io/nats-core";
import { BellhopError, textOf } from "./errors.js";
import { token } from "./names.js";

/** How long JetStream may take to confirm one route, and the pause before a failed write is repeated, in milliseconds. */
const ACK_TIMEOUT = 2_000;
const RETRY_AFTER = 500;
/** The codes with which nats-server refuses a write because the key was written since. A cluster may answer either. */
const WRONG_LAST_SEQUENCE = [10071, 10164];

/** A user who is connected, or whose route may still be there. */
interface Entry {
  terminals: number;
  /** The revision of the route: 0 if there is none, `undefined` if a write got no answer, so that it may still arrive. */
  revision: number | undefined;
  state: "written" | "due" | "writing" | "outdated";
  waiting: Set<Change>;
}

/** One call of the application, which waits until the routes of its users are written. */
interface Change {
  users: number;
  problem: string;
  done: () => void;
}

/**
 * Who is connected, and the routes that say so.
 *
 * There is one write at a time for each user. Changes in the meantime make one more write, so the latest state wins. Routes
 * are written by publishing to the bucket's stream, since an app server may not be allowed to do more.
 *
 * @internal
 */
export class Routes {
  readonly #js: JetStreamClient;
  readonly #users = new Map<string, Entry>();
  readonly #due = new Set<string>();
  /** Users whose routes could not be written. They are due again after a pause. */
  readonly #failed = new Set<string>();
  #writes = 0;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #isStopped = false;

  constructor(
    nc: NatsConnection,
    private readonly instance: string,
    private readonly options: {
      prefix: string;
      subject: string;
      routesInFlight: number;
      patience: number;
    },
  ) {
    this.#js = jetstream(nc);
  }

  isConnected(user: string): boolean {
    return (this.#users.get(user)?.terminals ?? 0) > 0;
  }

  /** Adds a terminal of each user. The route is put even if there is one, which makes this the user's latest device. */
  connect(users: Iterable<string>): Promise<void> {
    const entries = this.#valid(users).map((user) => {
      const entry = this.#users.get(user) ?? {
        terminals: 0,
        revision: 0,
        state: "written",
        waiting: new Set(),
      };
      this.#users.set(user, entry);
      entry.terminals += 1;
      return [user, entry] as const;
    });
    return this.#change(entries);
  }

  /** Removes a terminal of each user. `left` are those of whom it was the last. */
  disconnect(users: Iterable<string>): { left: Set<string>; written: Promise<void> } {
    const entries: (readonly [string, Entry])[] = [];
    for (const user of this.#valid(users)) {
      const entry = this.#users.get(user);
      if (!entry || entry.terminals === 0) continue;
      entry.terminals -= 1;
      if (entry.terminals === 0) entries.push([user, entry]);
    }
    return { left: new Set(entries.map(([user]) => user)), written: this.#change(entries) };
  }

  /** Removes all terminals. Resolves when all routes are deleted. */
  clear(): Promise<void> {
    for (const entry of this.#users.values()) entry.terminals = 0;
    return this.#change([...this.#users]);
  }

  /** Writes all routes again: some may be lost, or a write that got no answer may have arrived. */
  writeAllAgain(): void {
    this.#users.forEach((_, user) => this.#isDue(user));
    this.#pump();
  }

  /**
   * Finds out whether the bucket was deleted and created again, and writes all routes again if so.
   *
   * An app server may not be allowed to read the bucket. So this publishes to the key of one route, on a condition that
   * never holds. The server stores nothing, and its error names the sequence that the key has.
   */
  async check(): Promise<void> {
    const settled = [...this.#users].filter(([, it]) => it.state === "written" && it.revision);
    const [user, entry] = settled[Math.floor(Math.random() * settled.length)] ?? [];
    if (user === undefined || entry === undefined) return;
    const { revision } = entry;
    const expect = { lastSubjectSequence: Number.MAX_SAFE_INTEGER };
    try {
      await this.#js.publish(this.#key(user), "", { expect, timeout: ACK_TIMEOUT });
    } catch (error) {
      const found = /wrong last sequence: (\d+)/.exec(isOutdated(error) ? error.message : "")?.[1];
      const isUnchanged = entry.state === "written" && entry.revision === revision;
      if (found !== undefined && isUnchanged && Number(found) < revision!) this.writeAllAgain();
    }
  }

  /** Writes nothing from here on. */
  stop(): void {
    this.#isStopped = true;
    this.#due.clear();
    clearTimeout(this.#retry);
  }

  #valid(users: Iterable<string>): string[] {
    const list = [...users];
    list.forEach((user) => token("user", user));
    return list;
  }

  /** Resolves when what the users' routes must be now is written. */
  #change(entries: (readonly [string, Entry])[]): Promise<void> {
    const { patience } = this.options;
    const written = new Promise<void>((resolve, reject) => {
      if (entries.length === 0) return resolve();
      const late = () => {
        const text = `not all routes are confirmed after ${patience} ms: ${change.problem}; still retrying`;
        reject(new BellhopError("late", text));
      };
      const timer = setTimeout(late, patience);
      const done = () => {
        clearTimeout(timer);
        resolve();
      };
      const change: Change = { users: 0, problem: "JetStream has not answered", done };
      for (const [user, { waiting }] of entries) {
        if (!waiting.has(change)) change.users += 1;
        waiting.add(change);
        this.#isDue(user);
      }
      this.#pump();
    });
    written.catch(() => {}); // An application that does not wait for it must not end by it.
    return written;
  }

  #isDue(user: string): void {
    const entry = this.#users.get(user);
    if (entry?.state === "writing") entry.state = "outdated";
    if (entry?.state !== "written" && entry?.state !== "due") return;
    entry.state = "due";
    this.#due.add(user);
  }

  #pump(): void {
    for (const user of this.#due) {
      if (this.#writes >= Math.max(1, this.options.routesInFlight) || this.#isStopped) return;
      this.#due.delete(user);
      this.#writes += 1;
      void this.#write(user, this.#users.get(user)!).finally(() => {
        this.#writes -= 1;
        this.#pump();
      });
    }
  }

  async #write(user: string, entry: Entry): Promise<void> {
    entry.state = "writing";
    try {
      if (entry.terminals > 0) await this.#put(user, entry);
      else if (entry.revision !== 0) await this.#delete(user, entry);
    } catch (error) {
      entry.state = "due";
      for (const change of entry.waiting) change.problem = textOf(error);
      this.#failed.add(user);
      return this.#retryLater();
    }
    // It may have become outdated while the write was under way.
    if ((entry.state as Entry["state"]) === "outdated") {
      entry.state = "written";
      return this.#isDue(user);
    }
    entry.state = "written";
    for (const change of entry.waiting) if (--change.users === 0) change.done();
    entry.waiting.clear();
    if (entry.terminals === 0) this.#users.delete(user);
  }

  async #put(user: string, entry: Entry): Promise<void> {
    const { subject } = this.options;
    const value = JSON.stringify({ subject, since: new Date().toISOString() });
    entry.revision = undefined;
    const ack = await this.#js.publish(this.#key(user), value, { timeout: ACK_TIMEOUT });
    entry.revision = ack.seq;
  }

  /** Deletes the route if it is still the one that was put here. One of another process of this name stays. */
  async #delete(user: string, entry: Entry): Promise<void> {
    const deletion = headers();
    deletion.set("KV-Operation", "DEL");
    deletion.set("Nats-TTL", "1h");
    const { revision } = entry;
    const expect = revision === undefined ? {} : { lastSubjectSequence: revision };
    const options = { headers: deletion, expect, timeout: ACK_TIMEOUT };
    try {
      await this.#js.publish(this.#key(user), "", options);
    } catch (error) {
      if (!isOutdated(error)) throw error;
    }
    entry.revision = 0;
  }

  #retryLater(): void {
    if (this.#isStopped) return;
    this.#retry ??= setTimeout(() => {
      this.#retry = undefined;
      this.#failed.forEach((user) => this.#isDue(user));
      this.#failed.clear();
      this.#pump();
    }, RETRY_AFTER);
  }

  #key(user: string): string {
    const { prefix } = this.options;
    return `$KV.${prefix}_routes.${token("user", user)}.${token("instance", this.instance)}`;
  }
}

function isOutdated(error: unknown): error is JetStreamApiError {
  return error instanceof JetStreamApiError && WRONG_LAST_SEQUENCE.includes(error.code);
}
