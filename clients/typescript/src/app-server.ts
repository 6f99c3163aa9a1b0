import type { Msg, NatsConnection, Subscription } from "@nats-io/nats-core";
import { Deliveries } from "./deliveries.js";
import { BellhopError, textOf } from "./errors.js";
import { token } from "./names.js";
import { Pending } from "./pending.js";
import type { DeliveryAnswer, Heartbeat, HeartbeatAnswer } from "./protocol.js";
import { Routes } from "./routes.js";

/** How often what is too old is forgotten, and the time for requests that still arrive at the end, in milliseconds. */
const CLEAN_EVERY = 10_000;
const LAST_ANSWERS = 1_000;
const ACCEPTS_ALL = new TextEncoder().encode("{}");

/** Settings of an app server, each with its default. Times are in milliseconds. */
export interface AppServerOptions {
  /** The prefix of the installation's names: `bellhop`. */
  prefix?: string;
  /** The prefix of the instance's subjects: `<prefix>.app.<instance>`. */
  subject?: string;
  /** The most reminders without a decision, in the iterator or taken from it: 10,000. More are refused as `busy`. */
  capacity?: number;
  /** How long a request waits for the application's decisions: 1,500. It must be below Bellhop's `delivery.timeout` (2 s). */
  answerWithin?: number;
  /** How long the application may hold a reminder without a decision: 300,000. Then it comes again. */
  holdFor?: number;
  /** How long accepted reminders are remembered, to recognize repeats: 600,000. */
  rememberFor?: number;
  /**
   * How many accepted reminders are remembered at least: 20,000, about 200 bytes each; at most twice as many. What comes
   * again after a fault was under way then, so it is among the last `capacity` ones. With 0 the application gets every
   * repeat and decides about it, for example by its own database.
   */
  remember?: number;
  /** The most routes that are written at the same time: 256. */
  routesInFlight?: number;
  /** How long changes of routes, and draining, wait for JetStream: 5,000. */
  patience?: number;
  /** How often the app server finds out whether the bucket of routes is a new one: 10,000. */
  checkRoutesEvery?: number;
  /** Gets the problems that have no other place, such as requests that cannot be read: `console.error`. */
  onProblem?: (problem: string) => void;
}

/**
 * An instance of an app server.
 *
 * It keeps a table of connected users, and answers Bellhop from it. Routes follow the table: all are put again after each
 * reconnect to NATS, and when the bucket of routes was created again. (Where an installation delivers to a user's latest
 * device alone, this makes the devices of this instance the latest.)
 *
 * @example
 * ```ts
 * const app = await AppServer.start(await connect(), "app-1");
 * await app.connect("alice");
 * for await (const delivery of app.deliveries) {
 *   console.log(delivery.reminder.content);
 *   delivery.accept();
 * }
 * ```
 */
export class AppServer {
  /** The reminders for the users who are connected here. */
  readonly deliveries = new Deliveries(() => this.#takeIn());
  readonly #options: Required<AppServerOptions>;
  readonly #routes: Routes;
  readonly #pending: Pending;
  readonly #timers: ReturnType<typeof setInterval>[];
  #subscriptions: Subscription[] = [];
  #expiry: ReturnType<typeof setTimeout> | undefined;
  /** What has arrived in this turn of the event loop, and when. */
  #arrived: { msg: Msg; at: number }[] = [];
  /** What is answered at the end of this turn, so that all of it goes out in one piece. */
  #answers: { msg: Msg; answer: DeliveryAnswer }[] = [];
  #isEnding = false;
  /** Resolves when no request waits for an answer. */
  #idle: (() => void) | undefined;
  #end: Promise<void> | undefined;

  /**
   * Starts an instance over this connection, and subscribes to its requests. No user is connected yet. Two processes must not
   * have the same name at the same time.
   *
   * @throws {@link BellhopError} of the kind `invalid` for a name or subject that an app server cannot have
   */
  static async start(
    nc: NatsConnection,
    instance: string,
    options: AppServerOptions = {},
  ): Promise<AppServer> {
    const app = new AppServer(nc, instance, options);
    await nc.flush();
    return app;
  }

  private constructor(
    private readonly nc: NatsConnection,
    instance: string,
    options: AppServerOptions,
  ) {
    const prefix = options.prefix ?? "bellhop";
    this.#options = {
      prefix,
      subject: `${prefix}.app.${token("instance", instance)}`,
      capacity: 10_000,
      answerWithin: 1_500,
      holdFor: 300_000,
      rememberFor: 600_000,
      remember: 20_000,
      routesInFlight: 256,
      patience: 5_000,
      checkRoutesEvery: 10_000,
      onProblem: console.error,
      ...options,
    };
    const { subject } = this.#options;
    if (!/^[^\s*>.$_][^\s*>]*$/.test(subject) || subject.length > 256 || /\.(\.|$)/.test(subject)) {
      const text = `the subject ${JSON.stringify(subject)} cannot be an app server's; write one such as eu.app.7`;
      throw new BellhopError("invalid", text);
    }
    this.#routes = new Routes(nc, instance, this.#options);
    const isConnected = (user: string) => this.#routes.isConnected(user);
    this.#pending = new Pending(this.deliveries, isConnected, this.#options);
    this.#subscriptions = [
      this.#subscribe("heartbeat", (msg) => this.#heartbeat(msg)),
      this.#subscribe("deliver", (msg) => this.#deliver(msg)),
    ];
    this.#timers = [
      setInterval(() => this.#pending.clean(Date.now()), CLEAN_EVERY),
      setInterval(() => void this.#routes.check(), this.#options.checkRoutesEvery),
    ];
    void this.#watch();
  }

  /**
   * Registers a terminal of the user, or of each user. A user counts as connected at once, until as many terminals have left.
   *
   * The routes are put each time, which makes this the user's latest device.
   *
   * @returns when JetStream has confirmed the routes
   * @throws {@link BellhopError} of the kind `late` when that takes longer than `patience`; it goes on trying
   */
  connect(users: string | Iterable<string>): Promise<void> {
    return this.#change(() => this.#routes.connect(listOf(users)));
  }

  /**
   * Removes a terminal of the user, or of each user. After the last one the user no longer counts as connected, and the
   * user's reminders in the iterator are refused.
   *
   * @returns when JetStream has confirmed that the routes are deleted
   * @throws {@link BellhopError} of the kind `late`, as {@link connect} does
   */
  disconnect(users: string | Iterable<string>): Promise<void> {
    return this.#change(() => {
      const { left, written } = this.#routes.disconnect(listOf(users));
      if (left.size > 0) this.#pending.disconnected(left);
      return written;
    });
  }

  /** Returns whether the user has a terminal here. */
  isConnected(user: string): boolean {
    return this.#routes.isConnected(user);
  }

  /**
   * Stops: no user counts as connected any more, and the routes are deleted. The iterator still yields the reminders in it,
   * and ends when all are answered. If JetStream does not answer, it ends after `patience`, and Bellhop drops the routes after
   * its next heartbeats. The connection to NATS stays open.
   *
   * @returns when all is answered and the routes are deleted
   */
  drain(): Promise<void> {
    this.#end ??= this.#drain();
    return this.#end;
  }

  /**
   * Ends at once and leaves the routes, for a process whose successor has the same name and takes its users over: no reminder
   * goes to a mailbox meanwhile. Later decisions are not sent, so those reminders come again.
   *
   * @returns when the decisions made before this call are sent
   */
  async abandon(): Promise<void> {
    this.#end ??= Promise.resolve();
    this.#endTurn();
    this.#stop();
    this.#subscriptions.forEach((subscription) => subscription.unsubscribe());
    if (!this.nc.isClosed()) await this.nc.flush();
  }

  async #drain(): Promise<void> {
    await this.#routes.clear().catch(() => {}); // Bellhop finds out by its heartbeats.
    this.#endTurn();
    if (this.#pending.nextDeadline !== undefined) {
      await new Promise<void>((resolve) => (this.#idle = resolve));
    }
    this.#endTurn();
    if (!this.nc.isClosed()) {
      const drained = Promise.all(this.#subscriptions.map((subscription) => subscription.drain()));
      await Promise.race([drained, sleep(LAST_ANSWERS)]).catch(() => {});
      this.#endTurn();
    }
    this.#stop();
  }

  #stop(problem?: BellhopError): void {
    this.#timers.forEach(clearInterval);
    clearTimeout(this.#expiry);
    this.#routes.stop();
    this.deliveries.end(problem);
  }

  #change(change: () => Promise<void>): Promise<void> {
    if (this.#end === undefined) return change();
    const closed = new BellhopError("closed", "the app server has stopped; start another one");
    const refused = Promise.reject<void>(closed);
    refused.catch(() => {}); // An application that does not wait for it must not end by it.
    return refused;
  }

  /** Writes all routes again after each reconnect, and ends the iterator when the connection is closed for good. */
  async #watch(): Promise<void> {
    const ended = async () => {
      const cause = await this.nc.closed();
      if (this.#end !== undefined) return this.#stop();
      this.#end = Promise.resolve();
      const text = `the connection to NATS is closed${cause ? `: ${textOf(cause)}` : ""}; connect again`;
      this.#stop(new BellhopError("closed", text, { cause }));
    };
    void ended();
    for await (const status of this.nc.status()) {
      if (status.type === "reconnect") this.#routes.writeAllAgain();
    }
  }

  /** Answers requests. One that cannot be read gets no answer, so that Bellhop notices. */
  #subscribe(verb: string, answer: (msg: Msg) => void): Subscription {
    const { subject, onProblem } = this.#options;
    return this.nc.subscribe(`${subject}.${verb}`, {
      callback: (error, msg) => {
        if (error) return onProblem(`subscription to ${subject}.${verb}: ${error.message}`);
        try {
          answer(msg);
        } catch (problem) {
          this.#cannotRead(msg, problem);
        }
      },
    });
  }

  #heartbeat(msg: Msg): void {
    const { users } = msg.json<Heartbeat>();
    const answer: HeartbeatAnswer = {
      connected: users.filter((user) => this.#routes.isConnected(user)),
    };
    msg.respond(JSON.stringify(answer));
  }

  /**
   * Leaves a request to an application that waits. It takes one after the other in, so that each is in the processor's cache
   * until it is answered. What it leaves is taken in at the end of the turn.
   */
  #deliver(msg: Msg): void {
    this.#arrived.push({ msg, at: Date.now() });
    this.#endTurnSoon();
    this.deliveries.wake();
  }

  /** Takes the next request in, and returns whether there was one. One that cannot be read gets no answer. */
  #takeIn(): boolean {
    const next = this.#arrived.shift();
    if (!next) return false;
    const { msg, at } = next;
    try {
      this.#pending.request(msg.string(), at, (answer) => this.#answer(msg, answer));
    } catch (problem) {
      this.#cannotRead(msg, problem);
    }
    if (this.#expiry === undefined) this.#expireInTime();
    return true;
  }

  #answer(msg: Msg, answer: DeliveryAnswer): void {
    this.#answers.push({ msg, answer });
    this.#endTurnSoon();
    if (this.#idle && this.#pending.nextDeadline === undefined) this.#idle();
  }

  #endTurnSoon(): void {
    if (this.#isEnding) return;
    this.#isEnding = true;
    soon(() => {
      this.#isEnding = false;
      this.#endTurn();
    });
  }

  #endTurn(): void {
    while (this.#takeIn());
    const answers = this.#answers;
    this.#answers = [];
    if (this.nc.isClosed()) return;
    for (const { msg, answer } of answers) {
      msg.respond(answer.refused ? JSON.stringify(answer) : ACCEPTS_ALL);
    }
  }

  #cannotRead({ subject }: Msg, problem: unknown): void {
    this.#options.onProblem(`cannot read a request of Bellhop on ${subject}: ${textOf(problem)}`);
  }

  /** Sets a timer for the first deadline. */
  #expireInTime(): void {
    const { nextDeadline } = this.#pending;
    if (nextDeadline === undefined) return;
    this.#expiry = setTimeout(() => {
      this.#expiry = undefined;
      this.#pending.expire(Date.now());
      this.#expireInTime();
    }, nextDeadline - Date.now());
  }
}

/** Calls back after all that the application does at once. Browsers have no `setImmediate`. */
const soon: (callback: () => void) => void =
  globalThis.setImmediate ?? ((callback) => setTimeout(callback, 0));

const listOf = (users: string | Iterable<string>) => (typeof users === "string" ? [users] : users);

const sleep = (milliseconds: number) =>
  new Promise<void>((resolve) => setTimeout(resolve, milliseconds));
