// The list of reminders: the newest on top, each once.

import { keyOf, reminderElement } from './reminder.js';

/** More are not kept on the page; the history has them. */
const MOST = 1_000;

export class Feed {
  #list;
  #known = new Set();

  constructor(list) {
    this.#list = list;
  }

  get isEmpty() {
    return this.#known.size === 0;
  }

  /** Whether a reminder is on the page. */
  has(reminder) {
    return this.#known.has(keyOf(reminder));
  }

  /** Puts a reminder on top, unless it is there. Answers its element if it is new. */
  add(reminder) {
    return this.#put(reminder, (item) => this.#list.prepend(item));
  }

  /** The same at the bottom. */
  append(reminder) {
    return this.#put(reminder, (item) => this.#list.append(item));
  }

  /** Takes the oldest off a page that has too many. Answers whether there were any. */
  trim() {
    const has = this.#known.size > MOST;
    while (this.#known.size > MOST) {
      const last = this.#list.lastElementChild;
      this.#known.delete(last.dataset.key);
      last.remove();
    }
    return has;
  }

  #put(reminder, place) {
    if (this.has(reminder)) return null;
    const item = reminderElement(reminder);
    this.#known.add(item.dataset.key);
    place(item);
    return item;
  }
}
