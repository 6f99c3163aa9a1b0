import { Deliveries, Delivery, RequestText, type Verdict } from "./deliveries.js";
import { Known } from "./known.js";
import type { DeliveredReminder, DeliveryAnswer, Refused } from "./protocol.js";

/** A request of Bellhop with reminders, which waits for decisions. @internal */
export interface Request {
  readonly text: RequestText;
  readonly respond: (answer: DeliveryAnswer) => void;
  readonly deadline: number;
  readonly reminders: DeliveredReminder[];
  /** What was decided at once, and the deliveries that the application decides about, by place. */
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
  /** Their deadlines are in the same order. */
  readonly #requests = new Set<Request>();
  readonly #known: Known;
  #undecided = 0;
  #count = 0;

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
    this.#known = new Known(options.rememberFor, options.remember);
  }

  /**
   * Takes a request in. A reminder without room is refused at once, and so are the same user's later ones, so that they stay
   * in order. Throws if it is not a delivery; then it gets no answer.
   */
  request(text: string, now: number, respond: (answer: DeliveryAnswer) => void): void {
    const { reminders } = JSON.parse(text) as { reminders: DeliveredReminder[] };
    reminders.forEach(check);
    const request: Request = {
      text: new RequestText(text),
      respond,
      deadline: now + this.options.answerWithin,
      reminders,
      items: [],
      undecided: 0,
    };
    const queued: Delivery[] = [];
    const refused = new Map<string, Verdict>();
    for (const reminder of reminders) {
      const isBehindRefused = refused.size > 0 && refused.get(reminder.user);
      const item = isBehindRefused || this.#ask(request, reminder, queued);
      if (typeof item === "object") request.undecided += 1;
      else if (item !== "accepted") refused.set(reminder.user, item);
      request.items.push(item);
    }
    this.#requests.add(request);
    if (queued.length > 0) this.queue.push(queued);
    this.#answerIfDecided(request);
  }

  /** Returns the decision about a reminder, if there is one at once. Otherwise the application decides. */
  #ask(request: Request, reminder: DeliveredReminder, queued: Delivery[]): Verdict | Delivery {
    const key = this.#keyOf(reminder);
    const known = this.#known.get(key);
    if (known === "accepted") return known;
    if (known !== undefined) {
      known.requests.push(request);
      return known;
    }
    if (!this.isConnected(reminder.user)) return "not_connected";
    if (this.#undecided >= this.options.capacity) return "busy";
    const delivery = new Delivery(reminder, key, request, request.items.length, this);
    this.#known.set(key, delivery);
    this.#undecided += 1;
    queued.push(delivery);
    return delivery;
  }

  #keyOf({ source, id, user, published_at }: DeliveredReminder): string {
    // The time of publishing is in it: after the idempotency window an id may be used again, for another reminder.
    const key = [user, source, id, published_at].join("\n");
    // Without memory each has a key of its own.
    return this.options.remember === 0 ? `${key}\n${++this.#count}` : key;
  }

  /** Takes a decision, and gives it to the requests that wait for it. */
  decide(delivery: Delivery, verdict: Verdict): void {
    const { key, requests } = delivery;
    delivery.verdict = verdict;
    this.#undecided -= 1;
    if (verdict === "accepted" && this.options.remember > 0) this.#known.set(key, verdict);
    else this.#known.delete(key);
    for (const request of requests) {
      request.undecided -= 1;
      if (verdict !== "accepted") this.#takeBackBehind(request, delivery, verdict);
      this.#answerIfDecided(request);
    }
  }

  /** Refuses the reminders in the queue of users who have left. Those that the application has are its own to decide. */
  disconnected(users: Set<string>): void {
    for (const delivery of this.#known.undecided()) {
      if (delivery.isQueued && users.has(delivery.reminder.user)) {
        this.decide(delivery, "not_connected");
      }
    }
  }

  /** Answers the requests whose deadline has passed. Their undecided reminders are refused for now. */
  expire(now: number): void {
    for (const request of this.#requests) {
      if (request.deadline > now) break;
      this.#requests.delete(request);
      answer(request);
      for (const item of request.items) {
        if (typeof item !== "object" || item.verdict !== undefined) continue;
        item.requests = item.requests.filter((asking) => asking !== request);
        // No caller waits for it, so it leaves the queue.
        if (item.requests.length === 0 && item.isQueued) this.decide(item, "busy");
      }
    }
  }

  /** Forgets what is too old to matter. */
  clean(now: number): void {
    const { answerWithin, holdFor } = this.options;
    this.#known.forget(now);
    for (const delivery of this.#known.undecided()) {
      const heldFor = now - delivery.request.deadline + answerWithin;
      if (delivery.requests.length === 0 && heldFor >= holdFor) this.decide(delivery, "busy");
    }
  }

  /** Returns when {@link expire} has something to do. */
  get nextDeadline(): number | undefined {
    for (const { deadline } of this.#requests) return deadline;
    return undefined;
  }

  /** Refuses the same user's later reminders that are still in the queue, so that they stay in order. */
  #takeBackBehind({ items }: Request, { reminder: { user } }: Delivery, verdict: Verdict): void {
    let isBehind = false;
    for (const item of items) {
      if (typeof item !== "object" || item.reminder.user !== user) continue;
      if (isBehind && item.isQueued) this.decide(item, verdict);
      isBehind ||= item.verdict === verdict;
    }
  }

  #answerIfDecided(request: Request): void {
    if (request.undecided === 0 && this.#requests.delete(request)) answer(request);
  }
}

function answer({ items, reminders, respond }: Request): void {
  const refused: Refused[] = [];
  for (const [place, item] of items.entries()) {
    const verdict = typeof item === "object" ? (item.verdict ?? "busy") : item;
    if (verdict === "accepted") continue;
    const { id, source, user } = reminders[place]!;
    refused.push({ id, source, user, reason: verdict });
  }
  respond(refused.length > 0 ? { refused } : {});
}

function check({ source, id, user, content }: DeliveredReminder): void {
  const isText =
    typeof source === "string" &&
    typeof id === "string" &&
    typeof user === "string" &&
    typeof content === "string";
  if (!isText) throw new TypeError("a reminder lacks source, id, user or content");
}
