// What came before: loaded as one scrolls, and when it is unknown what was missed.

/** How many pages are looked through for the last reminder that is known. */
const MOST_PAGES = 5;

export class History {
  #feed;
  #cursor = null;
  #isComplete = false;
  #isLoading = false;
  #on;

  /** `on.state` gets the text to show, and whether trying again makes sense. */
  constructor(feed, on) {
    this.#feed = feed;
    this.#on = on;
  }

  /** Puts older reminders below, until there is at least one more or nothing is left. Answers whether there may be more. */
  async older() {
    if (this.#isLoading || this.#isComplete) return false;
    this.#isLoading = true;
    this.#on.state('Loading older reminders …');
    try {
      let added = 0;
      while (added === 0 && !this.#isComplete) {
        const page = await ask(this.#cursor);
        added = page.reminders.filter((reminder) => this.#feed.append(reminder)).length;
        this.#cursor = page.cursor ?? null;
        this.#isComplete = !page.cursor;
      }
      this.#on.state(this.#isComplete && !this.#feed.isEmpty ? 'That is all.' : '');
    } catch (problem) {
      this.#on.state(`Older reminders cannot be loaded now: ${problem.message}`, true);
      return false;
    } finally {
      this.#isLoading = false;
    }
    return !this.#isComplete;
  }

  /** Puts on top what was missed. */
  async catchUp() {
    const missed = [];
    let cursor = null;
    for (let pages = 0; pages < MOST_PAGES; pages++) {
      const page = await ask(cursor).catch(() => null);
      if (!page) return;
      const fresh = page.reminders.filter((reminder) => !this.#feed.has(reminder));
      missed.push(...fresh);
      cursor = page.cursor;
      if (!cursor || fresh.length < page.reminders.length) break;
    }
    missed.reverse().forEach((reminder) => this.#feed.add(reminder));
  }

  /** The bottom is not where it was: it is looked for again. */
  startOver() {
    this.#cursor = null;
    this.#isComplete = false;
    this.#on.state('');
  }
}

async function ask(cursor) {
  const answer = await fetch(cursor ? `history?cursor=${encodeURIComponent(cursor)}` : 'history');
  if (!answer.ok) throw new Error(await answer.text());
  return answer.json();
}
