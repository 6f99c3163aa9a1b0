import { jetstream, type JetStreamClient } from "@nats-io/jetstream";
import { nuid, type NatsConnection } from "@nats-io/nats-core";
import { checkId, toJson, type Draft } from "./draft.js";
import { BellhopError, textOf } from "./errors.js";
import { token } from "./names.js";
import type { Cancellation } from "./protocol.js";

/** The protocol's limit for the entries of a set, and the bytes of its message besides them, headers included. */
const MAX_ENTRIES = 10_000;
const FRAME_BYTES = 256;
/** Bellhop's stream refuses messages that are so close to the server's `max_payload`. */
const SPARE_BYTES = 4 << 10;
/** How long JetStream may take to acknowledge a set before it is published again, in milliseconds. */
const ACK_TIMEOUT = 2_000;
/** The first and the longest pause before that. */
const PAUSES = [50, 1_000] as const;

const encoder = new TextEncoder();

/** Settings of a publisher, each with its default. Times are in milliseconds. */
export interface PublisherOptions {
  /** The prefix of the installation's names: `bellhop`. */
  prefix?: string;
  /** The most sets without an acknowledgement: 4. The reminders of one user are in one of them, so that they keep their order. */
  setsInFlight?: number;
  /** The most entries of one set: 10,000, which is also the protocol's limit. */
  maxReminders?: number;
  /** The most bytes of one set: 512 KiB. The server's `max_payload` is a limit, too. */
  maxBytes?: number;
  /** The most bytes of reminders without an acknowledgement: 8 MiB. {@link Publisher.enqueue} waits for room. */
  maxWaitingBytes?: number;
  /** How long a set is retried: 60,000. It must be well below Bellhop's `idempotency.window` (10 minutes). */
  giveUpAfter?: number;
}

/** Confirms that JetStream has stored the reminder. From then on Bellhop is responsible for it. */
export interface Receipt {
  /** The reminder's id: the given one, or the generated one. */
  id: string;
  /** The sequence of its set in the stream of sets. Outcomes and deliveries name the set by it. */
  set: number;
}

/** A reminder on its way. */
export interface Publishing {
  /** The reminder's id: the given one, or the generated one. */
  id: string;
  /** Resolves when JetStream has stored it, or rejects with the kind `unconfirmed` or `closed`. */
  stored: Promise<Receipt>;
}

/** An entry of a set that is not acknowledged. */
interface Waiting {
  list: "reminders" | "cancel";
  /** What decides the order: entries of one user go out one behind the other. */
  lane: number;
  json: Uint8Array;
  resolve: (set: number) => void;
  reject: (problem: BellhopError) => void;
}

/**
 * Publishes reminders of one source.
 *
 * Reminders that wait at the same time go out as one set, so sets grow with load and nothing waits for a set to fill. Several
 * sets are under way. The reminders of a user are in one of them at a time, so a set that is retried cannot be overtaken, and
 * they keep their order. A cancellation waits for everything before it, and what comes after it waits for it.
 *
 * @example
 * ```ts
 * const billing = new Publisher(await connect(), "billing");
 * await billing.publish({ id: "inv-981", user: "alice", content: "Invoice 981 is due" });
 * ```
 */
export class Publisher {
  readonly #js: JetStreamClient;
  readonly #subject: string;
  readonly #options: Required<PublisherOptions>;
  /** What waits in order, in front of the lanes. */
  #queue: Waiting[] = [];
  /** What each lane sends next. One set of a lane is under way at a time. */
  readonly #lanes: { waiting: Waiting[]; isSending: boolean }[];
  #isCancelling = false;
  #isPumping = false;
  #isClosed = false;
  #waitingBytes = 0;
  /** Calls that wait for room, in order. */
  readonly #forRoom: { bytes: number; go: () => void }[] = [];

  /**
   * @throws {@link BellhopError} of the kind `invalid` if no source can have this name
   */
  constructor(
    private readonly nc: NatsConnection,
    private readonly source: string,
    options: PublisherOptions = {},
  ) {
    this.#options = {
      prefix: "bellhop",
      setsInFlight: 4,
      maxReminders: MAX_ENTRIES,
      maxBytes: 512 << 10,
      maxWaitingBytes: 8 << 20,
      giveUpAfter: 60_000,
      ...options,
    };
    this.#js = jetstream(nc);
    this.#subject = `${this.#options.prefix}.sets.${token("source", source)}`;
    const lanes = Math.max(1, this.#options.setsInFlight);
    this.#lanes = Array.from({ length: lanes }, () => ({ waiting: [], isSending: false }));
  }

  /**
   * Publishes a reminder. Reminders go out in the order of the calls.
   *
   * @returns when JetStream has stored it
   * @throws {@link BellhopError} of the kind `invalid` if Bellhop would refuse it, `unconfirmed` or `closed`
   */
  async publish(draft: Draft): Promise<Receipt> {
    return (await this.enqueue(draft)).stored;
  }

  /**
   * Takes a reminder when there is room, and does not wait until it is stored.
   *
   * @throws {@link BellhopError} of the kind `invalid` or `closed`
   */
  async enqueue(draft: Draft): Promise<Publishing> {
    const id = draft.id ?? nuid.next();
    const json = toJson({ ...draft, id });
    const stored = await this.#take("reminders", this.#laneOf(draft.user), json);
    const receipt = stored.promise.then((set) => ({ id, set }));
    receipt.catch(() => {}); // An application that does not wait for it must not end by it.
    return { id, stored: receipt };
  }

  /**
   * Publishes reminders in order, with many under way at a time. It takes the next one when there is room.
   *
   * @returns when JetStream has stored all of them; the receipts in the same order
   * @throws {@link BellhopError} with the first problem. The others may be stored.
   */
  async publishAll(drafts: Iterable<Draft> | AsyncIterable<Draft>): Promise<Receipt[]> {
    const stored: Promise<Receipt>[] = [];
    for await (const draft of drafts) stored.push((await this.enqueue(draft)).stored);
    return await Promise.all(stored);
  }

  /**
   * Cancels scheduled reminders: those with a `deliver_at` that has not come yet, and recurring ones. Their outcome is
   * `cancelled`. One that is due already, or was never scheduled, is left alone, and there is no outcome.
   *
   * It goes out in order with what is published: a reminder that is published later under the same id is not cancelled.
   *
   * @param user whose reminders; without it those of all users are cancelled
   * @returns when JetStream has stored the cancellation
   * @throws {@link BellhopError} of the kind `invalid` if no reminder can have this id, `unconfirmed` or `closed`
   */
  async cancel(ids: string | Iterable<string>, user?: string): Promise<void> {
    const list = typeof ids === "string" ? [ids] : [...ids];
    for (const id of list) checkId(id, "invalid_cancel");
    if (user !== undefined) token("user", user);
    const entry = (id: string): Cancellation => (user === undefined ? id : { id, user });
    const take = (id: string) => this.#take("cancel", 0, JSON.stringify(entry(id)));
    const taken = await Promise.all(list.map(take));
    await Promise.all(taken.map(({ promise }) => promise));
  }

  /** Waits until JetStream has answered for everything taken before. Each promise has its own result. */
  async flush(): Promise<void> {
    // What is not answered has room, so all of it is free when everything is.
    this.#release(await this.#room(Infinity));
  }

  /** Takes nothing more, and waits until JetStream has answered for everything taken before. The connection stays open. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.flush();
  }

  async #take(
    list: Waiting["list"],
    lane: number,
    text: string,
  ): Promise<{ promise: Promise<number> }> {
    if (this.#isClosed)
      throw new BellhopError("closed", "the publisher is closed; start another one");
    const json = encoder.encode(text);
    const bytes = await this.#room(json.length);
    const promise = new Promise<number>((resolve, reject) => {
      this.#queue.push({ list, lane, json, resolve, reject });
    }).finally(() => this.#release(bytes));
    promise.catch(() => {});
    this.#pumpSoon();
    return { promise }; // In an object, so that `await` does not wait for it.
  }

  /** Waits for room, behind those who wait already. */
  #room(bytes: number): Promise<number> {
    const taken = Math.min(bytes, this.#options.maxWaitingBytes);
    return new Promise((resolve) => {
      const go = () => {
        this.#waitingBytes += taken;
        resolve(taken);
      };
      this.#forRoom.push({ bytes: taken, go });
      this.#release(0);
    });
  }

  #release(bytes: number): void {
    this.#waitingBytes -= bytes;
    for (;;) {
      const [first] = this.#forRoom;
      if (!first || this.#waitingBytes + first.bytes > this.#options.maxWaitingBytes) return;
      this.#forRoom.shift();
      first.go();
    }
  }

  #laneOf(user: string): number {
    let hash = 0;
    for (let at = 0; at < user.length; at++) hash = (hash * 31 + user.charCodeAt(at)) | 0;
    return (hash >>> 0) % this.#lanes.length;
  }

  /** Sends what waits when the running code is done, so that what it publishes goes together. */
  #pumpSoon(): void {
    if (this.#isPumping) return;
    this.#isPumping = true;
    queueMicrotask(() => {
      this.#isPumping = false;
      this.#pump();
    });
  }

  #pump(): void {
    if (this.#isCancelling) return;
    let taken = 0;
    for (const waiting of this.#queue) {
      if (waiting.list === "cancel") break;
      this.#lanes[waiting.lane]!.waiting.push(waiting);
      taken += 1;
    }
    this.#queue.splice(0, taken);
    for (const lane of this.#lanes) {
      if (lane.isSending || lane.waiting.length === 0) continue;
      lane.isSending = true;
      const set = this.#cut(lane.waiting);
      void this.#publish(set).finally(() => {
        lane.isSending = false;
        this.#pump();
      });
    }
    // What is left begins with a cancellation. It goes alone.
    if (this.#queue.length === 0 || this.#lanes.some(({ isSending }) => isSending)) return;
    this.#isCancelling = true;
    void this.#publish(this.#cut(this.#queue)).finally(() => {
      this.#isCancelling = false;
      this.#pump();
    });
  }

  /** Takes the next set from the front of a queue: entries of one list, as far as they fit. */
  #cut(queue: Waiting[]): Waiting[] {
    const { maxReminders, maxBytes } = this.#options;
    const most = Math.min(maxBytes, (this.nc.info?.max_payload ?? Infinity) - SPARE_BYTES);
    let [count, bytes] = [0, FRAME_BYTES];
    for (const { list, json } of queue) {
      bytes += json.length + 1;
      const fits = count < Math.min(maxReminders, MAX_ENTRIES) && bytes <= most;
      if (count > 0 && (list !== queue[0]!.list || !fits)) break;
      count += 1;
    }
    return queue.splice(0, count);
  }

  async #publish(set: Waiting[]): Promise<void> {
    try {
      const sequence = await this.#store(bodyOf(set));
      for (const { resolve } of set) resolve(sequence);
    } catch (problem) {
      for (const { reject } of set) reject(problem as BellhopError);
    }
  }

  /** Publishes a set until it is stored. Its message id makes all attempts one set. */
  async #store(body: Uint8Array): Promise<number> {
    const options = { msgID: `${this.source} ${nuid.next()}`, timeout: ACK_TIMEOUT };
    const { giveUpAfter } = this.#options;
    const giveUpAt = Date.now() + giveUpAfter;
    let [pause, longest]: [number, number] = [...PAUSES];
    for (;;) {
      try {
        return (await this.#js.publish(this.#subject, body, options)).seq;
      } catch (cause) {
        const again = "it may be stored, so publish it again under its id";
        if (this.nc.isClosed()) {
          throw new BellhopError("closed", `the connection to NATS is closed; ${again}`, { cause });
        }
        if (Date.now() + pause >= giveUpAt) {
          const text = `not acknowledged within ${giveUpAfter} ms: ${textOf(cause)}; ${again}`;
          throw new BellhopError("unconfirmed", text, { cause });
        }
      }
      await new Promise((resolve) => setTimeout(resolve, pause));
      pause = Math.min(pause * 2, longest);
    }
  }
}

/** Returns the text of a set. All its entries are of one list. */
function bodyOf(set: Waiting[]): Uint8Array {
  const [open, close] = [encoder.encode(`{"${set[0]!.list}":[`), encoder.encode("]}")];
  const bytes = set.reduce(
    (sum, { json }) => sum + json.length + 1,
    open.length + close.length - 1,
  );
  const body = new Uint8Array(bytes);
  let end = 0;
  const append = (part: Uint8Array) => {
    body.set(part, end);
    end += part.length;
  };
  append(open);
  set.forEach(({ json }, place) => {
    if (place > 0) body[end++] = ",".charCodeAt(0);
    append(json);
  });
  append(close);
  return body;
}
