// The connection that brings reminders, and the word about those that are on the page.

/** How long to wait, in milliseconds, until the next try after the server said no. */
const PAUSES = [1_000, 2_000, 5_000, 10_000];

/**
 * Keeps a connection. `on.hello` is told who this is, and whether nothing was missed; `on.reminder` gets each reminder and puts it
 * on the page; `on.state` gets `connected`, `connecting`, or `offline`.
 */
export class Connection {
  #on;
  #source = null;
  #failures = 0;
  #timer = 0;
  /** The last event that is on the page, and the last one that the server was told of. */
  #shown = null;
  #told = null;
  #isTelling = false;

  constructor(on) {
    this.#on = on;
    window.addEventListener('online', () => this.#connect());
    window.addEventListener('offline', () => this.#on.state('offline'));
    this.#connect();
  }

  #connect() {
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#on.state(navigator.onLine ? 'connecting' : 'offline');
    const source = new EventSource(this.#shown ? `events?after=${this.#shown}` : 'events');
    this.#source = source;
    source.addEventListener('hello', (event) => {
      this.#failures = 0;
      this.#on.state('connected');
      this.#on.hello(JSON.parse(event.data));
      this.#told = null; // Perhaps it was not heard.
      this.#tell();
    });
    source.addEventListener('reminder', (event) => {
      this.#on.reminder(JSON.parse(event.data));
      this.#shown = event.lastEventId;
      this.#tell();
    });
    source.addEventListener('error', () => {
      this.#on.state(navigator.onLine ? 'connecting' : 'offline');
      // A connection that broke is made again by the browser. After a refusal it gives up.
      if (source.readyState === EventSource.CLOSED && source === this.#source) this.#tryLater();
    });
  }

  async #tryLater() {
    const pause = PAUSES[Math.min(this.#failures++, PAUSES.length - 1)];
    this.#timer = setTimeout(() => this.#connect(), pause);
    const answer = await fetch('history', { method: 'HEAD' }).catch(() => null);
    if (answer?.status === 401) location.assign('/');
  }

  /** Tells the server how far the page has come: only then is a reminder delivered. One word at a time. */
  async #tell() {
    if (this.#isTelling || !this.#shown) return;
    this.#isTelling = true;
    while (this.#told !== this.#shown) {
      const shown = this.#shown;
      const answer = await fetch('seen', { method: 'POST', body: shown }).catch(() => null);
      if (!answer?.ok) break; // When there is a connection again, it is told anew.
      this.#told = shown;
    }
    this.#isTelling = false;
  }
}
