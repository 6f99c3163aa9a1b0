import { Deliveries, Delivery, RequestText, type Verdict } from "./deliveries.js";
import { hashOf, Known } from "./known.js";
import type { DeliveredReminder, DeliveryAnswer, Refused } from "./protocol.js";

/** A request of Bellhop with reminders, which waits for decisions. @internal */
export class Request {
  /** What was decided at once, and the deliveries that the application decides about, by place. */
  items: (Verdict | Delivery)[] = [];
  /** How many of the items are undecided, and how many of those this request brought first. */
  undecided = 0;
  owned = 0;
  isRefused = false;
  /** For deliveries that no other request waits for. */
  readonly alone: readonly Request[] = [this];
  /** What remains when it is over: all that identifies its reminders, four texts each, and which of them were refused. */
  #identities: string | undefined;
  #refused: Set<number> | undefined;

  constructor(
    public reminders: DeliveredReminder[],
    readonly deadline: number,
    readonly respond: (answer: DeliveryAnswer) => void,
  ) {}

  /** Returns whether this reminder is at this place, undecided or accepted. */
  has({ source, id, user, published_at }: DeliveredReminder, place: number): boolean {
    if (this.#identities !== undefined) {
      const there = this.#identities.split("\n").slice(place * 4, place * 4 + 4);
      return there.join("\n") === [source, id, user, published_at].join("\n")
        ? !this.#refused?.has(place)
        : false;
    }
    const there = this.reminders[place]!;
    const isSame =
      there.id === id &&
      there.user === user &&
      there.source === source &&
      there.published_at === published_at;
    return isSame && !this.#isRefused(place);
  }

  /** Drops all that is not needed to recognize its reminders. */
  end(): void {
    const texts: string[] = [];
    for (const { source, id, user, published_at } of this.reminders) {
      texts.push(source, id, user, published_at); // None of them has control characters.
    }
    if (this.isRefused) {
      this.#refused = new Set([...this.items.keys()].filter((place) => this.#isRefused(place)));
    }
    this.#identities = texts.join("\n");
    this.reminders = [];
    this.items = [];
  }

  #isRefused(place: number): boolean {
    const item = this.items[place];
    return typeof item === "object" && item.verdict !== undefined && item.verdict !== "accepted";
  }
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
  /** Those without an answer. Their deadlines are in the same order. */
  readonly #requests = new Set<Request>();
  /** Those that brought what is undecided. */
  readonly #owners = new Set<Request>();
  readonly #known: Known;
  #undecided = 0;

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
    if (this.#known.isFull) this.#known.forget(now, this.#deliveries());
    const request = new Request(reminders, now + this.options.answerWithin, respond);
    const requestText = new RequestText(text);
    const queued: Delivery[] = [];
    let refused: Map<string, Verdict> | undefined;
    for (const reminder of reminders) {
      const item = refused?.get(reminder.user) ?? this.#ask(request, reminder, requestText, queued);
      if (typeof item === "object") request.undecided += 1;
      else if (item !== "accepted") (refused ??= new Map()).set(reminder.user, item);
      request.items.push(item);
    }
    request.isRefused = refused !== undefined;
    this.#requests.add(request);
    if (queued.length > 0) {
      request.owned = queued.length;
      this.#owners.add(request);
      this.queue.push(queued);
    }
    this.#answerIfDecided(request);
  }

  /** Returns the decision about a reminder, if there is one at once. Otherwise the application decides. */
  #ask(
    request: Request,
    reminder: DeliveredReminder,
    text: RequestText,
    queued: Delivery[],
  ): Verdict | Delivery {
    const hash = hashOf(reminder);
    const known = this.#known.find(hash, reminder);
    if (known) {
      const item = known.request.items[known.place];
      if (typeof item !== "object" || item.verdict !== undefined) return "accepted";
      item.requests = [...item.requests, request];
      return item;
    }
    if (!this.isConnected(reminder.user)) return "not_connected";
    if (this.#undecided >= this.options.capacity) return "busy";
    const place = request.items.length;
    const delivery = new Delivery(reminder, request, place, text, this);
    this.#known.add(hash, request, place);
    this.#undecided += 1;
    queued.push(delivery);
    return delivery;
  }

  /** Returns what is undecided. */
  *#deliveries(): Generator<Delivery> {
    for (const request of this.#owners) {
      for (const item of request.items) {
        const isUndecided = typeof item === "object" && item.verdict === undefined;
        if (isUndecided && item.request === request) yield item;
      }
    }
  }

  /** Takes a decision, and gives it to the requests that wait for it. */
  decide(delivery: Delivery, verdict: Verdict): void {
    delivery.verdict = verdict;
    this.#undecided -= 1;
    const owner = delivery.request;
    owner.owned -= 1;
    if (verdict !== "accepted") owner.isRefused = true;
    for (const request of delivery.requests) {
      request.undecided -= 1;
      if (verdict !== "accepted") {
        request.isRefused = true;
        this.#takeBackBehind(request, delivery, verdict);
      }
      this.#answerIfDecided(request);
    }
    if (owner.owned === 0) {
      this.#owners.delete(owner);
      this.#endIfOver(owner);
    }
  }

  /** Refuses the reminders in the queue of users who have left. Those that the application has are its own to decide. */
  disconnected(users: Set<string>): void {
    for (const delivery of this.#deliveries()) {
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
    if (this.#known.isOld(now)) this.#known.forget(now, this.#deliveries());
    for (const delivery of this.#deliveries()) {
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
    if (request.undecided === 0 && this.#requests.delete(request)) {
      answer(request);
      this.#endIfOver(request);
    }
  }

  #endIfOver(request: Request): void {
    if (request.owned === 0 && request.items.length > 0 && !this.#requests.has(request)) {
      request.end();
    }
  }
}

function answer({ items, reminders, undecided, isRefused, respond }: Request): void {
  if (undecided === 0 && !isRefused) return respond({});
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
