import { members } from "./json.js";
import type { DeliveredReminder, Reason } from "./protocol.js";

/** A decision about a reminder. */
export type Verdict = "accepted" | Reason;

/** A request with reminders that waits for decisions, and the place of a reminder in it. @internal */
export interface Asking {
  readonly number: number;
  readonly place: number;
}

/** The text of a request. It is divided when somebody asks for a part of it. @internal */
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
  askedBy: Asking[];
  /** Where it is: in the queue, with the application, or decided. @internal */
  state: "queued" | "taken" | "decided" = "queued";
  /** When the application took it. @internal */
  takenAt = 0;

  /** @internal */
  constructor(
    /** The reminder. Fields that this client does not know are there, too. */
    readonly reminder: DeliveredReminder,
    /** @internal */
    readonly key: string,
    asking: Asking,
    private readonly request: RequestText,
    private readonly decide: (delivery: Delivery, verdict: Verdict) => void,
  ) {
    this.askedBy = [asking];
    this.place = asking.place;
  }

  private readonly place: number;

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
    return this.request.reminder(this.place);
  }

  private settle(verdict: Verdict): boolean {
    if (this.state === "decided") return false;
    this.decide(this, verdict);
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
  #end: { problem?: unknown } | undefined;

  /** Waits for the next reminder, in the way of an iterator. */
  async next(): Promise<IteratorResult<Delivery, undefined>> {
    for (;;) {
      const delivery = this.#take();
      if (delivery) return { value: delivery, done: false };
      if (!(await this.#more())) return { value: undefined, done: true };
    }
  }

  /**
   * Waits for the next request, and returns its reminders in order, so that they can be stored together. After
   * {@link next} it has the other reminders of the same request. The list is never empty.
   *
   * @returns `undefined` when the app server has drained
   */
  async nextBatch(): Promise<Delivery[] | undefined> {
    for (;;) {
      const first = this.#take();
      if (first) {
        const batch = [first];
        while (this.#taken < this.#rest.length) {
          const delivery = this.#take();
          if (delivery) batch.push(delivery);
        }
        return batch;
      }
      if (!(await this.#more())) return undefined;
    }
  }

  /** Returns this. */
  [Symbol.asyncIterator](): this {
    return this;
  }

  /** @internal */
  push(request: Delivery[]): void {
    this.#requests.push(request);
    this.#wake();
  }

  /** Ends the iterator behind what waits; with a problem it throws there. @internal */
  end(problem?: unknown): void {
    this.#end ??= { problem };
    this.#wake();
  }

  /** Takes the next reminder that was not taken back meanwhile. */
  #take(): Delivery | undefined {
    for (;;) {
      while (this.#taken < this.#rest.length) {
        const delivery = this.#rest[this.#taken++]!;
        if (delivery.state !== "queued") continue;
        delivery.state = "taken";
        delivery.takenAt = Date.now();
        return delivery;
      }
      const request = this.#requests.shift();
      if (!request) return undefined;
      [this.#rest, this.#taken] = [request, 0];
    }
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

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}
