import type { Delivery } from "./deliveries.js";
import type { Request } from "./pending.js";
import type { DeliveredReminder } from "./protocol.js";

/** Where a reminder is: in the request that brought it first, at this place. @internal */
export interface Place {
  request: Request;
  place: number;
}

/**
 * The places of reminders that are undecided or were accepted lately, to recognize repeats.
 *
 * Two generations bound them by age and by number, without work for a single one: when the younger is full or old enough, the
 * older is forgotten. So an accepted reminder is remembered for `rememberFor` to twice as long, unless more than `remember`
 * others follow it.
 *
 * @internal
 */
export class Known {
  #young = new Table();
  #old = new Table();
  #since = -Infinity;

  constructor(
    private readonly rememberFor: number,
    private readonly remember: number,
  ) {}

  /** Returns the place of a reminder with this hash, unless it is new or was refused. Without memory all are new. */
  find(hash: number, reminder: DeliveredReminder): Place | undefined {
    if (this.remember === 0) return undefined;
    return this.#young.find(hash, reminder) ?? this.#old.find(hash, reminder);
  }

  add(hash: number, request: Request, place: number): void {
    if (this.remember > 0) this.#young.add(hash, request, place);
  }

  /** Whether the younger generation is full. */
  get isFull(): boolean {
    return this.#young.count > this.remember;
  }

  /** Whether the younger generation is old enough. */
  isOld(now: number): boolean {
    return now - this.#since >= this.rememberFor;
  }

  /** Forgets the older generation, except for what is undecided. */
  forget(now: number, undecided: Iterable<Delivery>): void {
    this.#since = now;
    [this.#old, this.#young] = [this.#young, new Table(this.#young)];
    for (const { reminder, request, place } of undecided) {
      this.add(hashOf(reminder), request, place);
    }
  }
}

/** The numbers of a slot: the hash of a reminder, the number of its request from 1, and its place there. */
const SLOT = 3;

/**
 * A hash table with open addressing. Objects that live long, one for each reminder, would cost more than all else that is done
 * for a reminder; numbers cost next to nothing.
 */
class Table {
  count = 0;
  #requests: Request[] = [];
  /** Their number is a power of two. */
  #slots: Int32Array;

  /** A table that is as large as the one before has no need to grow. */
  constructor(before?: Table) {
    this.#slots = new Int32Array(before ? before.#slots.length : SLOT << 10);
  }

  find(hash: number, reminder: DeliveredReminder): Place | undefined {
    const slots = this.#slots;
    const last = slots.length / SLOT - 1;
    for (let slot = hash & last; ; slot = (slot + 1) & last) {
      const at = slot * SLOT;
      if (slots[at + 1] === 0) return undefined;
      if (slots[at] !== hash) continue;
      const [request, place] = [this.#requests[slots[at + 1]! - 1]!, slots[at + 2]!];
      if (request.has(reminder, place)) return { request, place };
    }
  }

  add(hash: number, request: Request, place: number): void {
    if (this.#requests.at(-1) !== request) this.#requests.push(request);
    this.count += 1;
    if (this.count * SLOT * 2 > this.#slots.length) this.#grow();
    insert(this.#slots, hash, this.#requests.length, place);
  }

  #grow(): void {
    const smaller = this.#slots;
    this.#slots = new Int32Array(smaller.length * 2);
    for (let at = 0; at < smaller.length; at += SLOT) {
      const [hash, number, place] = [smaller[at]!, smaller[at + 1]!, smaller[at + 2]!];
      if (number !== 0) insert(this.#slots, hash, number, place);
    }
  }
}

function insert(slots: Int32Array, hash: number, number: number, place: number): void {
  const last = slots.length / SLOT - 1;
  let slot = hash & last;
  while (slots[slot * SLOT + 1] !== 0) slot = (slot + 1) & last;
  slots[slot * SLOT] = hash;
  slots[slot * SLOT + 1] = number;
  slots[slot * SLOT + 2] = place;
}

/** Publishers choose ids, and do not know this. */
const SEED = Math.floor(Math.random() * 2 ** 32);

/** Returns a hash of nearly all that identifies a reminder. @internal */
export function hashOf({ id, user, source }: DeliveredReminder): number {
  const hash = mix(mix(mix(SEED, id), user), source);
  return Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d) | 0;
}

/** FNV-1a, over UTF-16. */
function mix(hash: number, text: string): number {
  for (let at = 0; at < text.length; at++) {
    hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193);
  }
  return hash;
}
