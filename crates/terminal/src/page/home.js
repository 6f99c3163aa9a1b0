// A user's page: what there is, and who tells whom.

import { Feed } from './feed.js';
import { History } from './history.js';
import { sentenceOf } from './reminder.js';
import { refreshTimes } from './time.js';
import { joinConnection } from './windows.js';

const at = (id) => document.getElementById(id);
const STATES = { connected: 'Connected', connecting: 'Reconnecting …', offline: 'Offline', crowded: 'Too many windows' };
/** What else there is to say of a connection. */
const CROWDED =
  'This browser has no connection left for this window: it already shows reminders of four people, or in four windows that '
  + 'cannot share one. Close one of them, and this window connects by itself.';
const ALONE =
  'This browser cannot share one connection between windows. Keep no more than four windows of this site open: with more, '
  + 'pages stop loading.';
/** What arrives within this time, in milliseconds, is announced together. */
const BREATH = 700;

const feed = new Feed(at('reminders'));
const history = new History(feed, {
  state(text, canTryAgain = false) {
    at('more-state').textContent = text;
    at('more-again').hidden = !canTryAgain;
  },
});

// ------------------------------------------------------------------------------------------------- what arrives
let announced = [];
let fresh = 0;

/** Whether what arrives is seen at once. */
function isUpToDate() {
  return !document.hidden && window.scrollY <= 100;
}

function arrived(reminder) {
  const item = feed.add(reminder);
  if (!item) return;
  item.classList.add('arriving');
  // Nothing is taken away from a user who reads down there.
  if (isUpToDate() && feed.trim()) history.startOver();
  showEmptiness();
  if (announced.push(reminder) === 1) setTimeout(announce, BREATH);
  if (!isUpToDate()) showFresh(fresh + 1);
}

/** Announces arrivals to screen readers. Many at once are announced as a number. */
function announce() {
  const [first] = announced;
  at('announcer').textContent = announced.length > 1 ? `${announced.length} new reminders` : sentenceOf(first);
  announced = [];
}

function showFresh(count) {
  fresh = count;
  at('fresh').hidden = fresh === 0;
  at('fresh').textContent = fresh === 1 ? '↑ 1 new reminder' : `↑ ${fresh} new reminders`;
  document.title = (fresh ? `(${fresh}) ` : '') + `Reminders of ${at('user').textContent}`;
}

at('fresh').addEventListener('click', () => {
  window.scrollTo({ top: 0 });
  at('feed').focus({ preventScroll: true });
});
for (const happening of ['scroll', 'visibilitychange']) {
  document.addEventListener(happening, () => fresh && isUpToDate() && showFresh(0), { passive: true });
}

// ---------------------------------------------------------------------------------------------- what came before
let bottom = null;

/** Loads older ones as long as the end of the page is near. */
function watchBottom() {
  let isNear = false, isAtWork = false;
  const load = async () => {
    if (isAtWork) return;
    isAtWork = true;
    while (isNear && (await history.older())) await new Promise(requestAnimationFrame);
    isAtWork = false;
    showEmptiness();
  };
  bottom = new IntersectionObserver(([entry]) => {
    isNear = entry.isIntersecting;
    if (isNear) load();
  }, { rootMargin: '400px' });
  bottom.observe(at('more'));
  at('more-again').addEventListener('click', load);
}

function showEmptiness() {
  at('empty').hidden = !feed.isEmpty;
}

// ------------------------------------------------------------------------------------------------- which are shown
for (const chip of document.querySelectorAll('[data-show]')) {
  chip.addEventListener('click', () => {
    at('reminders').dataset.show = chip.dataset.show;
    for (const other of document.querySelectorAll('[data-show]')) {
      other.setAttribute('aria-pressed', String(other === chip));
    }
  });
}

setInterval(refreshTimes, 15_000);

joinConnection({
  state(state, isShared) {
    at('connection').dataset.state = state;
    at('connection').textContent = STATES[state];
    const notice = state === 'crowded' ? CROWDED : isShared ? '' : ALONE;
    at('notice').hidden = !notice;
    at('notice').textContent = notice;
  },
  async hello({ user, resumed }) {
    at('user').textContent = user;
    showFresh(fresh);
    if (!bottom) return watchBottom();
    if (!resumed) await history.catchUp();
  },
  reminder: arrived,
});
