import { BellhopError } from "./errors.js";
import { byteLength, isTorn, problemOf } from "./names.js";
import type { PublishedReminder, RejectCode } from "./protocol.js";

const MAX_ID_BYTES = 256;
/** Bellhop puts the moment behind the id of a recurring reminder, within the bound of all ids. */
const MAX_RECURRING_ID_BYTES = 235;
const CRON_FIELDS = 5;
const MAX_TITLE_BYTES = 1 << 10;
const MAX_CONTENT_BYTES = 64 << 10;
const MAX_REMINDER_BYTES = 256 << 10;
const MAX_TAGS = 16;
const MAX_LEVELS = 64;
const MAX_FIELD_BYTES = 50_000;
const PRIORITIES: unknown[] = ["low", "normal", "high", "urgent"];
const LATEST = Date.parse("2262-01-01T00:00:00Z");

/**
 * A reminder to publish. `user` and `content` are required. Without an `id` it gets one. Publish again under the same id after
 * a crash: within `idempotency.window` (10 minutes) the same id is the same reminder.
 */
export type Draft = Omit<PublishedReminder, "deliver_at" | "expires_at"> & {
  /** Not delivered before this. */
  deliver_at?: string | Date;
  /** Not delivered after this. */
  expires_at?: string | Date;
  /** `data` as JSON text, which is delivered byte for byte; for numbers that JavaScript would round. */
  dataJson?: string;
};

/** Throws if no reminder can have this id. @internal */
export function checkId(id: unknown, code: RejectCode): void {
  refuse(code, "the id", problemOf(id, MAX_ID_BYTES));
}

/** Returns a reminder as JSON. Throws if Bellhop would refuse it. @internal */
export function toJson({ dataJson, ...draft }: Draft & { id: string }): string {
  checkId(draft.id, "invalid_id");
  refuse("invalid_user", "the user", problemOf(draft.user));
  refuse("invalid_title", "the title", problemOfText(draft.title ?? "", MAX_TITLE_BYTES));
  refuse("invalid_content", "the content", problemOfText(draft.content, MAX_CONTENT_BYTES));
  if (draft.content === "") refuse("invalid_content", "the content", "is empty");
  const tags = draft.tags ?? [];
  if (tags.length > MAX_TAGS)
    refuse("too_many_tags", "the reminder", `has more than ${MAX_TAGS} tags`);
  for (const tag of tags) refuse("invalid_tag", `the tag ${JSON.stringify(tag)}`, problemOf(tag));
  if (draft.priority !== undefined && !PRIORITIES.includes(draft.priority)) {
    refuse("invalid_priority", "the priority", `must be one of ${PRIORITIES.join(", ")}`);
  }
  checkTimes(draft);
  checkRepeat(draft);
  const data = dataJson === undefined ? draft.data : (JSON.parse(dataJson) as unknown);
  if (data !== undefined) refuse("invalid_data", "the data", problemOfData(data, 1));
  const json = JSON.stringify(draft);
  const whole = dataJson === undefined ? json : `${json.slice(0, -1)},"data":${dataJson}}`;
  if (byteLength(whole) > MAX_REMINDER_BYTES) {
    refuse("reminder_too_large", "the reminder", `has more than ${MAX_REMINDER_BYTES} bytes`);
  }
  return whole;
}

function refuse(code: RejectCode, what: string, problem: string | undefined): void {
  if (problem === undefined) return;
  throw new BellhopError("invalid", `Bellhop would refuse the reminder: ${what} ${problem}`, {
    code,
  });
}

function problemOfText(text: unknown, max: number): string | undefined {
  if (typeof text !== "string") return `must be text, not ${typeof text}`;
  if (isTorn(text)) return "has half of a surrogate pair";
  return byteLength(text) > max ? `has more than ${max} bytes` : undefined;
}

function checkTimes({ deliver_at, expires_at }: Draft): void {
  const [due, end] = [timeOf(deliver_at), timeOf(expires_at)];
  if (Number.isNaN(due)) refuse("invalid_deliver_at", "deliver_at", "is not an RFC 3339 time");
  if (Number.isNaN(end)) refuse("invalid_expires_at", "expires_at", "is not an RFC 3339 time");
  if (due === undefined) return;
  if (due > LATEST) refuse("invalid_deliver_at", "deliver_at", "is after 2262-01-01");
  if (end !== undefined && due >= end) {
    refuse("invalid_deliver_at", "deliver_at", "is not before expires_at");
  }
}

/** Checks a recurring reminder as far as it can: Bellhop alone reads cron patterns. */
function checkRepeat({ repeat, id }: Draft & { id: string }): void {
  if (repeat === undefined) return;
  if (typeof repeat?.cron !== "string" || repeat.cron.trim().split(/\s+/).length !== CRON_FIELDS) {
    refuse("invalid_repeat", "repeat", `has no cron of ${CRON_FIELDS} fields`);
  }
  if (byteLength(id) > MAX_RECURRING_ID_BYTES) {
    refuse("invalid_repeat", "the id", `has more than ${MAX_RECURRING_ID_BYTES} bytes`);
  }
}

/** Returns a time in milliseconds, or `NaN` if it is none. */
function timeOf(time: string | Date | undefined): number | undefined {
  if (time === undefined || time instanceof Date) return time?.getTime();
  return /^\d{4}-\d\d-\d\dT.*(Z|[+-]\d\d:\d\d)$/i.test(time) ? Date.parse(time) : NaN;
}

/** Returns the problem that common readers of JSON would have with a value. */
function problemOfData(value: unknown, level: number): string | undefined {
  if (typeof value === "string" && isTorn(value)) return "has half of a surrogate pair";
  if (typeof value === "number" && !Number.isFinite(value)) {
    return "has a number that JSON cannot express";
  }
  if (typeof value === "bigint") return "has a bigint; use dataJson";
  if (typeof value !== "object" || value === null) return undefined;
  if (level > MAX_LEVELS) return `has more than ${MAX_LEVELS} levels`;
  for (const [name, member] of Object.entries(value)) {
    if (byteLength(name) > MAX_FIELD_BYTES)
      return `has a name of more than ${MAX_FIELD_BYTES} bytes`;
    const problem = problemOfData(name, level) ?? problemOfData(member, level + 1);
    if (problem !== undefined) return problem;
  }
  return undefined;
}
