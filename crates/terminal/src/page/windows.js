// A window's end of the connection that it shares with the user's other windows in this browser.

import { Connection } from './connection.js';

/** The path of the user's page. */
const HOME = location.pathname;

/**
 * Joins the user's connection. `on.hello` gets whose reminders these are and whether nothing was missed, `on.reminder` puts a
 * reminder on the page, and `on.state` gets the connection's state, and whether the window shares it.
 */
export function joinConnection(on) {
  let port = null;
  let isShared = true;
  const use = (next) => {
    port = next;
    port.onmessage = ({ data }) => {
      if (data.ask) port.postMessage({ connect: true });
      if (data.state === 'signed-out') return location.assign('/');
      if (data.state) on.state(data.state, isShared);
      if (data.hello) on.hello(data.hello);
      if (!data.reminder) return;
      on.reminder(data.reminder);
      port.postMessage({ shown: data.number });
    };
  };
  const beAlone = () => {
    isShared = false;
    const { port1, port2 } = new MessageChannel();
    new Connection(HOME).join(port1);
    use(port2);
  };
  const worker = startWorker();
  if (worker) {
    worker.addEventListener('error', beAlone, { once: true });
    use(worker.port);
  } else {
    beAlone();
  }
  addEventListener('pagehide', () => port.postMessage({ leave: true }));
  // A page that comes back out of the browser's cache has left.
  addEventListener('pageshow', ({ persisted }) => persisted && location.reload());
}

/** Starts the user's shared worker, or finds it. Returns null where a browser has none. */
function startWorker() {
  if (!('SharedWorker' in self)) return null;
  const url = '/worker.js';
  // The Content-Security-Policy lets no text become a script's address, but for this one.
  const policy = self.trustedTypes?.createPolicy('worker', { createScriptURL: () => url });
  return new SharedWorker(policy?.createScriptURL(url) ?? url, { name: HOME, type: 'module' });
}
