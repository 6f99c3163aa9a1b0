import { members } from "./json.js";
import type { Pending, Request } from "./pending.js";
import type { DeliveredReminder, Reason } from "./protocol.js";

/** A decision about a reminder. */
export type Verdict = "accepted" | Reason;

/** The text of a request. It is divided when a part of it is requested. @internal */
export class RequestText {
  #parts: string[] | undefined;

  constructor(private readonly text: string) {}

  reminder(place: number): string {
    this.#parts ??= [...members(members(this.text).get("reminders")!).values()];
    return this.#parts[place]!;
  }
}

/**
 * A reminder that the application has to accept or refuse.
 *
 * A reminder without a decision when `answerWithin` ends is refused for now. Bellhop delivers it again after a moment. The
 * application, which still has it, does not get it a second time: its decision in the meantime answers the new delivery. Only
 * after `holdFor` without a decision the reminder counts as forgotten, and comes again.
 */
export class Delivery {
  /** The requests that wait for a decision. @internal */
  requests: readonly Request[];
  /** The decision. @internal */
  verdict: Verdict | undefined;
  private isTaken = false;

  /** @internal */
  constructor(
    /** The reminder. Fields that this client does not know are there, too. */
    readonly reminder: DeliveredReminder,
    /** The request that brought it. @internal */
    readonly request: Request,
    /** Its place there. @internal */
    readonly place: number,
    private readonly text: RequestText,
    private readonly pending: Pending,
  ) {
    this.requests = request.alone;
  }

  /**
   * Accepts the reminder: it is safe with the application, and Bellhop forgets it.
   *
   * @returns whether this decision counts. It does not if there was one before, or if `holdFor` has passed.
   */
  accept(): boolean {
    return this.settle("accepted");
  }

  /**
   * Refuses the reminder, and with it the user's later reminders of the same request, so that they stay in order.
   *
   * With `busy` it comes again after a moment. With `not_connected` Bellhop drops the user's route; when the user has left,
   * call {@link AppServer.disconnect} instead, which refuses all that waits.
   *
   * @returns whether this decision counts, as for {@link accept}
   */
  refuse(reason: Reason): boolean {
    return this.settle(reason);
  }

  /** Refuses the reminder as `busy`, so that it comes again after a moment. */
  later(): boolean {
    return this.settle("busy");
  }

  /** The reminder as it came, as JSON text. Numbers in `data` have all their digits there. */
  get json(): string {
    return this.text.reminder(this.place);
  }

  /** Whether the application has not taken it yet, and may still do so. @internal */
  get isQueued(): boolean {
    return !this.isTaken && this.verdict === undefined;
  }

  /** Takes it for the application, unless it was taken back. @internal */
  take(): boolean {
    const isQueued = this.isQueued;
    this.isTaken = true;
    return isQueued;
  }

  private settle(verdict: Verdict): boolean {
    if (this.verdict !== undefined) return false;
    this.pending.decide(this, verdict);
    return true;
  }
}

/**
 * The reminders for the users who are connected here, as an async iterator. It ends when the app server has drained.
 *
 * A user's reminders of one source arrive in the order of publishing. Leaving the loop loses nothing: what is not taken is
 * refused as `busy` after a moment, and comes again.
 */
export class Deliveries implements AsyncIterableIterator<Delivery> {
  /** The reminders of each request that the application has not taken. */
  #requests: Delivery[][] = [];
  #rest: Delivery[] = [];
  #taken = 0;
  #waiting: (() => void)[] = [];
  readonly #takeIn: () => boolean;
  #end: { problem?: unknown } | undefined;

  /** Gets what takes the next request in, and returns whether there was one. @internal */
  constructor(takeIn: () => boolean = () => false) {
    this.#takeIn = takeIn;
  }

  /** Waits for the next reminder, in the way of an iterator. */
  next(): Promise<IteratorResult<Delivery, undefined>> {
    const value = this.#take();
    return value ? Promise.resolve({ value, done: false }) : this.#nextLater();
  }

  /**
   * Waits for the next request, and returns its reminders in order, so that they can be stored together. After
   * {@link next} it has the other reminders of the same request. The list is never empty.
   *
   * @returns `undefined` when the app server has drained
   */
  async nextBatch(): Promise<Delivery[] | undefined> {
    const { value: first } = await this.next();
    if (first === undefined) return undefined;
    const others = this.#rest.slice(this.#taken).filter((delivery) => delivery.take());
    this.#taken = this.#rest.length;
    return [first, ...others];
  }

  /** Returns this. */
  [Symbol.asyncIterator](): this {
    return this;
  }

  /** @internal */
  push(request: Delivery[]): void {
    this.#requests.push(request);
    this.wake();
  }

  /** Ends the iterator behind what waits; with a problem it throws there. @internal */
  end(problem?: unknown): void {
    this.#end ??= { problem };
    this.wake();
  }

  /** Takes the next reminder that was not taken back meanwhile. */
  #take(): Delivery | undefined {
    for (;;) {
      while (this.#taken < this.#rest.length) {
        const delivery = this.#rest[this.#taken++]!;
        if (delivery.take()) return delivery;
      }
      const request = this.#requests.shift();
      if (request) [this.#rest, this.#taken] = [request, 0];
      else if (!this.#takeIn()) return undefined;
    }
  }

  async #nextLater(): Promise<IteratorResult<Delivery, undefined>> {
    while (await this.#more()) {
      const value = this.#take();
      if (value) return { value, done: false };
    }
    return { value: undefined, done: true };
  }

  /** Waits until there may be more. Returns whether there can be. */
  async #more(): Promise<boolean> {
    if (this.#end) {
      if (this.#end.problem !== undefined) throw this.#end.problem;
      return false;
    }
    await new Promise<void>((resolve) => this.#waiting.push(resolve));
    return true;
  }

  /** Makes an application that waits look again. @internal */
  wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}
