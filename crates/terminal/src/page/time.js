// Times as people say them, with the exact one on demand.

const relative = new Intl.RelativeTimeFormat('en', { numeric: 'auto' });
const exact = new Intl.DateTimeFormat(undefined, { dateStyle: 'full', timeStyle: 'medium' });
const UNITS = [['day', 86_400], ['hour', 3_600], ['minute', 60]];

/** How long ago something was, in words. */
export function ago(time, now = Date.now()) {
  const seconds = Math.round((time - now) / 1_000);
  const unit = UNITS.find(([, size]) => Math.abs(seconds) >= size);
  return unit ? relative.format(Math.trunc(seconds / unit[1]), unit[0]) : 'just now';
}

/** A `<time>` that says how long ago it was, or nothing where the text is no time. */
export function timeElement(text) {
  const time = new Date(text);
  if (!text || Number.isNaN(time.getTime())) return null;
  const element = document.createElement('time');
  element.dateTime = time.toISOString();
  element.title = exact.format(time);
  element.textContent = ago(time);
  return element;
}

/** Brings all times of the page up to date. */
export function refreshTimes(root = document) {
  for (const element of root.querySelectorAll('time')) {
    const text = ago(new Date(element.dateTime));
    if (element.textContent !== text) element.textContent = text;
  }
}
