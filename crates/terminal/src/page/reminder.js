// One reminder as a list item. All text comes from strangers: it becomes text nodes and nothing else.

import { timeElement } from './time.js';

/** Longer texts are folded, in characters. */
const LONG = 1_200;
const PRIORITIES = new Map([['low', 'Low'], ['normal', ''], ['high', 'High'], ['urgent', 'Urgent']]);

/** What a reminder is known by: it may come twice, live and from the history. */
export function keyOf(reminder) {
  return JSON.stringify([reminder.source, reminder.id, reminder.for ?? null, reminder.published_at]);
}

/** A reminder in one sentence. */
export function sentenceOf(reminder) {
  const whose = reminder.for ? `for ${reminder.for}: ` : '';
  return whose + [reminder.title, reminder.content].filter(Boolean).join('. ');
}

/** The list item of a reminder. */
export function reminderElement(reminder) {
  const item = element('li', 'reminder');
  const priority = PRIORITIES.has(reminder.priority) ? reminder.priority : 'normal';
  item.dataset.key = keyOf(reminder);
  item.dataset.priority = priority;
  item.dataset.whose = reminder.for ? 'others' : 'own';
  const card = element('article');
  card.append(...[header(reminder, priority), body(reminder), footer(reminder)].flat());
  item.append(card);
  return item;
}

function header(reminder, priority) {
  const line = element('p', 'about');
  if (PRIORITIES.get(priority)) line.append(badge(PRIORITIES.get(priority), 'priority'));
  if (reminder.for) line.append(badge(`for ${reminder.for}`, 'for'));
  if (reminder.rerouted_to) line.append(badge(`${reminder.rerouted_to} has it, too`, 'fate'));
  if (reminder.count > 1) line.append(badge(`stands for ${reminder.count}`, 'count'));
  const fate = fateOf(reminder);
  if (fate) line.append(badge(fate, 'fate'));
  line.append(element('span', 'source', reminder.source));
  const published = timeElement(reminder.published_at);
  if (published) line.append(published);
  if (!reminder.title) return [line];
  const title = element('h2');
  title.dir = 'auto';
  title.append(marked(reminder.title, reminder.marks, 'title'));
  return [line, title];
}

/** What the history says became of it, where that is not simply that it was delivered. */
function fateOf(reminder) {
  if (reminder.outcome === 'expired') return 'expired before it could be delivered';
  if (reminder.outcome !== 'rerouted') return '';
  const to = reminder.trail?.find((step) => step.outcome === 'rerouted')?.to;
  return to ? `went to ${to}` : 'went to an associate';
}

function body(reminder) {
  const text = element('p', 'content');
  text.dir = 'auto';
  text.append(marked(reminder.content ?? '', reminder.marks, 'content'));
  if (Array.from(reminder.content ?? '').length <= LONG) return [text];
  text.classList.add('folded');
  const unfold = element('button', 'unfold', 'Show all of it');
  unfold.addEventListener('click', () => {
    text.classList.remove('folded');
    unfold.remove();
    text.tabIndex = -1;
    text.focus();
  });
  return [text, unfold];
}

function footer(reminder) {
  const line = element('p', 'tags');
  for (const tag of reminder.tags ?? []) line.append(element('bdi', 'tag', `#${tag}`));
  const waited = reminder.parked_at ?? reminder.trail?.find((step) => step.outcome === 'parked')?.at;
  const since = timeElement(waited);
  if (since) {
    const note = element('span', 'waited', 'waited in the mailbox since ');
    note.append(since);
    line.append(note);
  }
  return line.childNodes.length ? [line] : [];
}

/**
 * A text with its marks. Offsets count Unicode scalar values, as elements of `Array.from`. Marks may overlap, so the text is
 * cut where one begins or ends; neighbours of the same link are one link. What makes no sense is passed over.
 */
export function marked(text, marks, field) {
  const characters = Array.from(text);
  const valid = (marks ?? [])
    .filter((mark) => mark.field === field && Number.isInteger(mark.start) && Number.isInteger(mark.end))
    .map((mark) => ({ ...mark, start: Math.max(mark.start, 0), end: Math.min(mark.end, characters.length) }))
    .filter((mark) => mark.start < mark.end);
  const cuts = [...new Set([0, ...valid.flatMap((mark) => [mark.start, mark.end]), characters.length])];
  cuts.sort((a, b) => a - b);
  const fragment = document.createDocumentFragment();
  let anchor = null, linked = null;
  for (const [nth, start] of cuts.slice(0, -1).entries()) {
    const here = valid.filter((mark) => mark.start <= start && start < mark.end);
    const link = here.find((mark) => mark.action === 'link' && webAddress(mark.href));
    if (link !== linked) anchor = link ? linkElement(link) : null;
    if (link && link !== linked) fragment.append(anchor);
    linked = link;
    const piece = document.createTextNode(characters.slice(start, cuts[nth + 1]).join(''));
    (anchor ?? fragment).append(highlighted(piece, here.find((mark) => mark.action === 'highlight')));
  }
  return fragment;
}

function highlighted(piece, mark) {
  if (!mark) return piece;
  const element = document.createElement('mark');
  element.title = `${mark.tag}: ${mark.rule}`;
  element.append(piece);
  return element;
}

function linkElement(mark) {
  const anchor = document.createElement('a');
  anchor.href = webAddress(mark.href);
  anchor.rel = 'noopener noreferrer';
  anchor.target = '_blank';
  return anchor;
}

/** An address of the web, or nothing: `javascript:` and its kin lead nowhere. */
function webAddress(href) {
  const url = URL.canParse(href) ? new URL(href) : null;
  return url && ['http:', 'https:'].includes(url.protocol) ? url.href : null;
}

function badge(text, kind) {
  return element('bdi', `badge ${kind}`, text);
}

function element(name, className = '', text = '') {
  const element = document.createElement(name);
  if (className) element.className = className;
  element.textContent = text;
  return element;
}
