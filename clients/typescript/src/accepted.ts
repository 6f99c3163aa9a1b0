/**
 * Recently accepted reminders, to recognize repeats.
 *
 * Two generations of keys bound them by age and by number, without work for a single key: when the younger one is full or
 * old enough, the older one is forgotten. So a key is remembered for `rememberFor` to twice as long, unless more than
 * `remember` keys follow it.
 *
 * @internal
 */
export class Accepted {
  #young = new Set<string>();
  #old = new Set<string>();
  #since = -Infinity;

  constructor(
    private readonly rememberFor: number,
    private readonly remember: number,
  ) {}

  has(key: string): boolean {
    return this.#young.has(key) || this.#old.has(key);
  }

  add(key: string, now: number): void {
    this.forget(now);
    if (this.#young.size >= this.remember) this.#turn(now);
    if (this.remember > 0) this.#young.add(key);
  }

  /** Forgets what is too old. */
  forget(now: number): void {
    if (now - this.#since >= this.rememberFor) this.#turn(now);
  }

  #turn(now: number): void {
    [this.#old, this.#young, this.#since] = [this.#young, new Set(), now];
  }
}
