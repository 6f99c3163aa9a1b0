// A user's connection to the server. It brings reminders to windows, and tells the server which of them are on a page.
//
// One connection serves all windows that a user has in this browser: it lives in a shared worker (worker.js). Where there
// are no shared workers, each window has a connection of its own (windows.js).

/** Pauses between tries to connect, in milliseconds. The first is for a connection that broke. */
const PAUSES = [500, 1_000, 2_000, 5_000, 10_000];
/** The pause until a connection looks for a seat again, in milliseconds. */
const SEAT_PAUSE = 1_000;
/** Over HTTP/1.1 a browser opens six connections to a server. Two of them stay free for everything but events. */
const SEATS = 4;
/** The reminders that are kept for a window that opens later: as many as the server keeps. */
const MOST_RECENT = 200;

/**
 * Windows speak with it over message ports. It sends
 * - `{ state }`: `connecting`, `connected`, `offline`, `crowded` or `signed-out`;
 * - `{ hello }`: whose reminders these are, and whether nothing was missed;
 * - `{ reminder, number }`;
 * - `{ ask: true }`: the window, unless it is frozen, answers `connect`.
 *
 * A window sends `{ connect: true }`, `{ shown: number }` for a reminder that is on its page, and `{ leave: true }`.
 */
export class Connection {
  #home;
  #windows = new Set();
  #state = 'connecting';
  #hello = null;
  #recent = [];
  #source = null;
  #isConnecting = false;
  #hasSeat = false;
  #failures = 0;
  #timer = 0;
  /** The number of the last reminder that came, of the last that a page shows, and of the last that the server knows of. */
  #received = 0;
  #shown = 0;
  #reported = 0;
  #isTelling = false;

  /** `home` is the path of the user's page. */
  constructor(home) {
    this.#home = home;
    self.addEventListener('online', () => this.#ask());
    self.addEventListener('offline', () => this.#setState('offline'));
  }

  /** Adds a window, and sends it what the others have. */
  join(port) {
    this.#windows.add(port);
    port.onmessage = ({ data }) => {
      if (data.leave) this.#windows.delete(port);
      if (data.connect) this.#connect();
      if (data.shown) this.#show(data.shown);
    };
    if (this.#hello) port.postMessage({ hello: this.#hello });
    this.#recent.forEach((message) => port.postMessage(message));
    port.postMessage({ state: this.#state });
    port.postMessage({ ask: true });
  }

  #send(message) {
    this.#windows.forEach((port) => port.postMessage(message));
  }

  #setState(state) {
    this.#state = state;
    this.#send({ state });
  }

  /** Connects as soon as a window answers. With frozen windows alone the user is away. */
  #ask() {
    clearTimeout(this.#timer);
    this.#send({ ask: true });
  }

  #askIn(pause) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#ask(), pause);
  }

  async #connect() {
    if (this.#source || this.#isConnecting) return;
    this.#isConnecting = true;
    this.#hasSeat ||= await takeSeat();
    this.#isConnecting = false;
    if (!this.#hasSeat) {
      this.#setState('crowded');
      return this.#askIn(SEAT_PAUSE);
    }
    this.#setState(navigator.onLine ? 'connecting' : 'offline');
    const source = new EventSource(`${this.#home}events${this.#received ? `?after=${this.#received}` : ''}`);
    this.#source = source;
    source.addEventListener('hello', (event) => {
      this.#failures = 0;
      this.#hello = JSON.parse(event.data);
      this.#setState('connected');
      this.#send({ hello: this.#hello });
      this.#reported = 0; // The server may be another one.
      this.#tell();
    });
    source.addEventListener('reminder', (event) => this.#receive(JSON.parse(event.data), Number(event.lastEventId)));
    source.addEventListener('error', () => this.#lose(source));
  }

  #receive(reminder, number) {
    this.#received = number;
    const message = { reminder, number };
    this.#recent.push(message);
    if (this.#recent.length > MOST_RECENT) this.#recent.shift();
    this.#send(message);
  }

  /** The connection broke, or was refused. */
  async #lose(source) {
    source.close();
    if (source !== this.#source) return;
    this.#source = null;
    this.#setState(navigator.onLine ? 'connecting' : 'offline');
    this.#askIn(PAUSES[Math.min(this.#failures++, PAUSES.length - 1)]);
    const answer = await fetch(`${this.#home}history`, { method: 'HEAD' }).catch(() => null);
    if (answer?.status === 401) this.#setState('signed-out');
  }

  #show(number) {
    this.#shown = Math.max(this.#shown, number);
    this.#tell();
  }

  /** Tells the server up to which reminder a page shows all: only then is a reminder delivered. One request at a time. */
  async #tell() {
    if (this.#isTelling) return;
    this.#isTelling = true;
    while (this.#reported < this.#shown) {
      const shown = this.#shown;
      const answer = await fetch(`${this.#home}seen`, { method: 'POST', body: shown }).catch(() => null);
      if (answer?.status === 401) this.#setState('signed-out');
      if (!answer?.ok) break; // It is sent again after the next `hello`.
      this.#reported = shown;
    }
    this.#isTelling = false;
  }
}

/**
 * Takes one of the browser's seats at this server, and keeps it until the worker or window ends. Returns whether there was
 * one. Without locks (they need HTTPS or this machine) nothing is counted.
 */
async function takeSeat() {
  if (!navigator.locks) return true;
  for (let seat = 1; seat <= SEATS; seat++) {
    const isTaken = await new Promise((resolve) => {
      navigator.locks.request(`bellhop-seat-${seat}`, { ifAvailable: true }, (lock) => {
        resolve(Boolean(lock));
        return lock && new Promise(() => {});
      });
    });
    if (isTaken) return true;
  }
  return false;
}
