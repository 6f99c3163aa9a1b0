import type { RejectCode } from "./protocol.js";

/**
 * The kind of a problem:
 *
 * - `invalid`: Bellhop would refuse the reminder or the name, or has refused the query. Nothing was sent or changed.
 * - `unconfirmed`: JetStream did not acknowledge a set in time. It may be stored nevertheless: publish again under the same ids.
 * - `late`: JetStream did not confirm all routes in time. The app server goes on trying.
 * - `forbidden`, `not_found`, `unavailable`: a query was answered with 403, 404 or 503. No answer is `unavailable`, too.
 * - `closed`: the app server, the publisher or its connection to NATS has ended.
 */
export type ErrorKind =
  "invalid" | "unconfirmed" | "late" | "forbidden" | "not_found" | "unavailable" | "closed";

/** A problem with Bellhop. {@link kind} is for programs, the message for people. */
export class BellhopError extends Error {
  /** The name of the class. */
  override readonly name = "BellhopError";

  constructor(
    /** The kind of the problem. */
    readonly kind: ErrorKind,
    message: string,
    options?: ErrorOptions & {
      /** The code with which Bellhop would refuse a reminder. */
      code?: RejectCode;
    },
  ) {
    super(message, options);
    this.code = options?.code;
  }

  /** The code with which Bellhop would refuse a reminder, if the kind is `invalid` and it is about one. */
  readonly code: RejectCode | undefined;
}

/** Returns the text of whatever was thrown. */
export const textOf = (problem: unknown): string =>
  problem instanceof Error ? problem.message || problem.name : String(problem);
