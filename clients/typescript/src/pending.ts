import { Accepted } from "./accepted.js";
import { Deliveries, Delivery, RequestText, type Verdict } from "./deliveries.js";
import type { DeliveredReminder, DeliveryAnswer, Refused } from "./protocol.js";

/** A request of Bellhop with reminders. */
interface Request {
  readonly respond: (answer: DeliveryAnswer) => void;
  readonly deadline: number;
  readonly reminders: DeliveredReminder[];
  /** What was decided, and what is not decided yet, by place. */
  readonly items: (Verdict | Delivery)[];
  undecided: number;
}

/**
 * Requests without an answer, and reminders without a decision.
 *
 * A reminder can wait longer than the request that brought it, and a second request can bring it again. So a reminder knows
 * the requests that wait for it, and its decision goes to all of them.
 *
 * @internal
 */
export class Pending {
  readonly #undecided = new Map<string, Delivery>();
  /** By number. Their deadlines are in the same order. */
  readonly #requests = new Map<number, Request>();
  readonly #accepted: Accepted;
  #lastNumber = 0;

  constructor(
    private readonly queue: Deliveries,
    private readonly isConnected: (user: string) => boolean,
    private readonly options: {
      capacity: number;
      answerWithin: number;
      holdFor: number;
      rememberFor: number;
      remember: number;
    },
  ) {
    this.#accepted = new Accepted(options.rememberFor, options.remember);
  }

  /**
   * Takes a request in. A reminder without room is refused at once, and so are the same user's later ones, so that they stay
   * in order. Throws if it is not a delivery; then it gets no answer.
   */
  request(text: string, now: number, respond: (answer: DeliveryAnswer) => void): void {
    const { reminders } = JSON.parse(text) as { reminders: DeliveredReminder[] };
    reminders.forEach(check);
    const number = ++this.#lastNumber;
    const items: (Verdict | Delivery)[] = [];
    const deadline = now + this.options.answerWithin;
    const request: Request = { respond, deadline, reminders, items, undecided: 0 };
    const queued: Delivery[] = [];
    const body = new RequestText(text);
    const refused = new Map<string, Verdict>();
    const decide = this.#decide;
    for (const [place, reminder] of reminders.entries()) {
      const { user } = reminder;
      const key = this.#keyOf(reminder, number, place);
      let item: Verdict | Delivery | undefined = refused.size > 0 ? refused.get(user) : undefined;
      item ??= this.#accepted.has(key) ? "accepted" : this.#undecided.get(key);
      if (typeof item === "object") {
        item.askedBy.push({ number, place });
      } else if (item === undefined) {
        if (!this.isConnected(user)) item = "not_connected";
        else if (this.#undecided.size >= this.options.capacity) item = "busy";
        else {
          item = new Delivery(reminder, key, { number, place }, body, decide);
          this.#undecided.set(key, item);
          queued.push(item);
        }
      }
      if (typeof item === "object") request.undecided += 1;
      else if (item !== "accepted") refused.set(user, item);
      items.push(item);
    }
    this.#requests.set(number, request);
    if (queued.length > 0) this.queue.push(queued);
    this.#answerIfDecided(number, request);
  }

  /** Refuses the reminders in the queue of users who have left. Those that the application has are its own to decide. */
  disconnected(users: Set<string>): void {
    for (const delivery of this.#undecided.values()) {
      if (delivery.state === "queued" && users.has(delivery.reminder.user)) {
        this.#decide(delivery, "not_connected");
      }
    }
  }

  /** Answers the requests whose deadline has passed. Their undecided reminders are refused for now. */
  expire(now: number): void {
    for (const [number, request] of this.#requests) {
      if (request.deadline > now) break;
      for (const item of request.items) {
        if (typeof item !== "object") continue;
        item.askedBy = item.askedBy.filter((asking) => asking.number !== number);
        if (item.askedBy.length === 0 && item.state === "queued") this.#forget(item);
      }
      this.#answer(number, request);
    }
  }

  /** Forgets what is too old to matter. */
  clean(now: number): void {
    this.#accepted.forget(now);
    for (const delivery of this.#undecided.values()) {
      const isHeld = delivery.state === "taken" && now - delivery.takenAt >= this.options.holdFor;
      if (isHeld && delivery.askedBy.length === 0) this.#forget(delivery);
    }
  }

  /** Returns when {@link expire} has something to do. */
  get nextDeadline(): number | undefined {
    for (const { deadline } of this.#requests.values()) return deadline;
    return undefined;
  }

  #keyOf({ source, id, user, published_at }: DeliveredReminder, number: number, place: number) {
    // The time of publishing is in it: after the idempotency window an id may be used again, for another reminder.
    const key = `${source}\n${id}\n${user}\n${published_at}`;
    // Without memory each request has its own keys.
    return this.options.remember === 0 ? `${key}\n${number}\n${place}` : key;
  }

  /** Takes a decision, and gives it to the requests that wait for it. */
  readonly #decide = (delivery: Delivery, verdict: Verdict): void => {
    this.#forget(delivery);
    if (verdict === "accepted") this.#accepted.add(delivery.key, Date.now());
    for (const { number, place } of delivery.askedBy) {
      const request = this.#requests.get(number);
      if (!request) continue;
      request.items[place] = verdict;
      request.undecided -= 1;
      if (verdict !== "accepted") this.#takeBackBehind(request, place, verdict);
      this.#answerIfDecided(number, request);
    }
  };

  /** Refuses the same user's later reminders that are still in the queue, so that they stay in order. */
  #takeBackBehind(request: Request, place: number, verdict: Verdict): void {
    const { user } = request.reminders[place]!;
    for (const item of request.items.slice(place + 1)) {
      if (typeof item !== "object" || item.state !== "queued") continue;
      if (item.reminder.user === user) this.#decide(item, verdict);
    }
  }

  #forget(delivery: Delivery): void {
    delivery.state = "decided";
    this.#undecided.delete(delivery.key);
  }

  #answerIfDecided(number: number, request: Request): void {
    if (request.undecided === 0) this.#answer(number, request);
  }

  #answer(number: number, { items, reminders, respond }: Request): void {
    if (!this.#requests.delete(number)) return;
    const refused: Refused[] = [];
    for (const [place, item] of items.entries()) {
      if (item === "accepted") continue;
      const { id, source, user } = reminders[place]!;
      refused.push({ id, source, user, reason: typeof item === "object" ? "busy" : item });
    }
    respond(refused.length > 0 ? { refused } : {});
  }
}

function check({ source, id, user, content }: DeliveredReminder): void {
  for (const text of [source, id, user, content]) {
    if (typeof text !== "string")
      throw new TypeError("a reminder lacks source, id, user or content");
  }
}
