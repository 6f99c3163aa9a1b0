import type { Delivery } from "./deliveries.js";

/**
 * Reminders by their keys: those without a decision, and those that were accepted lately, to recognize repeats.
 *
 * Two generations bound them by age and by number, without work for a single key: when the younger one is full or old
 * enough, the older one is forgotten. So an accepted reminder is remembered for `rememberFor` to twice as long, unless more
 * than `remember` others follow it.
 *
 * @internal
 */
export class Known {
  #young = new Map<string, Delivery | "accepted">();
  #old = new Map<string, Delivery | "accepted">();
  #since = -Infinity;

  constructor(
    private readonly rememberFor: number,
    private readonly remember: number,
  ) {}

  get(key: string): Delivery | "accepted" | undefined {
    return this.#young.get(key) ?? (this.#old.size > 0 ? this.#old.get(key) : undefined);
  }

  set(key: string, known: Delivery | "accepted"): void {
    if (this.#young.size > this.remember) this.#turn();
    this.#young.set(key, known);
  }

  delete(key: string): void {
    if (!this.#young.delete(key)) this.#old.delete(key);
  }

  /** Forgets the accepted ones that are too old. */
  forget(now: number): void {
    if (now - this.#since < this.rememberFor) return;
    this.#since = now;
    this.#turn();
  }

  /** Returns those without a decision. */
  *undecided(): Generator<Delivery> {
    for (const generation of [this.#old, this.#young]) {
      for (const known of generation.values()) if (isUndecided(known)) yield known;
    }
  }

  /** Forgets the older generation, except for those without a decision. */
  #turn(): void {
    const young = new Map<string, Delivery>();
    for (const [key, known] of this.#old) if (isUndecided(known)) young.set(key, known);
    [this.#old, this.#young] = [this.#young, young];
  }
}

/** One that was decided may still be in the older generation, behind its decision in the younger one. */
function isUndecided(known: Delivery | "accepted"): known is Delivery {
  return known !== "accepted" && known.verdict === undefined;
}
