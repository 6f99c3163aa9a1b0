import { RequestError, type NatsConnection } from "@nats-io/nats-core";
import { BellhopError, textOf, type ErrorKind } from "./errors.js";
import type {
  EraseAnswer,
  HistoryAnswer,
  HistoryQuery,
  HistoryReminder,
  MailboxAnswer,
  WhyAnswer,
} from "./protocol.js";

/** The kinds of the codes with which Bellhop answers a query that it does not fulfil. */
const KINDS: Record<string, ErrorKind> = { 400: "invalid", 403: "forbidden", 404: "not_found" };

/** Settings of queries, each with its default. */
export interface QueriesOptions {
  /** The prefix of the installation's names: `bellhop`. */
  prefix?: string;
  /** How long an answer may take, in milliseconds: 25,000. Bellhop itself gives up after 20 s. */
  timeout?: number;
}

/**
 * Asks Bellhop about reminders, and erases users. All methods throw {@link BellhopError} of the kind `invalid`, `forbidden` or
 * `unavailable`.
 *
 * @example
 * ```ts
 * const { trail } = await new Queries(await connect()).why("billing", "inv-981");
 * ```
 */
export class Queries {
  readonly #options: Required<QueriesOptions>;

  constructor(
    private readonly nc: NatsConnection,
    options: QueriesOptions = {},
  ) {
    this.#options = { prefix: "bellhop", timeout: 25_000, ...options };
  }

  /** Returns one page of the history: up to `limit` reminders, the one that was published last first. */
  history(query: HistoryQuery = {}): Promise<HistoryAnswer> {
    return this.#ask("history", query);
  }

  /** Yields all reminders of the history that match, and asks for the next page when it is needed. */
  async *reminders(query: HistoryQuery = {}): AsyncGenerator<HistoryReminder, void, undefined> {
    let { cursor } = query;
    do {
      const page = await this.history({ ...query, cursor });
      yield* page.reminders;
      ({ cursor } = page);
    } while (cursor !== undefined);
  }

  /**
   * Returns a reminder, and all its outcomes.
   *
   * @param user whose reminder; without it the one that was published last under this id
   * @throws {@link BellhopError} of the kind `not_found` if there is no such reminder
   */
  why(source: string, id: string, user?: string): Promise<WhyAnswer> {
    return this.#ask("why", { source, id, user });
  }

  /** Returns what waits for a user: how many, and up to `limit` of them (100), the oldest first. */
  mailbox(user: string, limit?: number): Promise<MailboxAnswer> {
    return this.#ask("mailbox", { user, limit });
  }

  /** Erases a user: the history, the mailbox, the routes, the associates. Returns how many of each. */
  erase(user: string): Promise<EraseAnswer> {
    return this.#ask("erase", { user });
  }

  async #ask<Answer>(what: string, query: object): Promise<Answer> {
    const { prefix, timeout } = this.#options;
    const subject = `${prefix}.api.${what}`;
    const answer = await this.nc
      .request(subject, JSON.stringify(query), { timeout })
      .catch((cause: unknown) => {
        const isAbsent = cause instanceof RequestError && cause.isNoResponders();
        const problem = isAbsent ? "no Bellhop answers there" : textOf(cause);
        throw new BellhopError("unavailable", `${subject}: ${problem}`, { cause });
      });
    const code = answer.headers?.get("Nats-Service-Error-Code");
    if (!code) return answer.json<Answer>();
    const sentence = answer.headers?.get("Nats-Service-Error");
    throw new BellhopError(KINDS[code] ?? "unavailable", `${subject}: ${sentence} (${code})`);
  }
}
