// What the page says: messages, that something is being done, and what was passed over.

import { by, make, name } from '/parts.js';

export function say(text, error = false) {
  const box = by('message');
  box.textContent = text;
  box.classList.toggle('error', error);
  box.hidden = !text;
  if (error) box.scrollIntoView({ block: 'nearest' });
}

let waiting = [];  // reasons of the changes that are not done yet
let last = Promise.resolve();

// Changes of a model, one after the other; meanwhile a bar moves, and what changes the model can't
// be pressed. The job may tell how far it is. Gives what the job gives, false where it failed.
export function work(reason, job) {
  const mine = { reason };
  waiting = [...waiting, mine];
  settle();
  const tell = (text) => { mine.reason = text; settle(); };
  last = last.then(async () => {
    try {
      return await job(tell);
    } catch (error) {
      say(error.message, true);
      return false;
    } finally {
      waiting = waiting.filter((one) => one !== mine);
      settle();
    }
  });
  return last;
}

// Buttons that change a model wait while one is changed; each says why it can't be pressed.
export function settle() {
  const reason = waiting.length ? waiting[0].reason : '';
  by('busy').hidden = !reason;
  by('doing').textContent = reason;
  for (const button of document.querySelectorAll('[data-changes]')) {
    const why = reason ? `Wait: ${reason}` : button.dataset.off || '';
    button.disabled = Boolean(why);
    button.title = why || button.dataset.hint || '';
  }
}

// Counts by kind, as the commands close with them.

const LISTED = 3;  // names beside a count
const counts = new Map();  // kind -> names, of all that was dropped on this page
const standing = new Map();  // of a model -> [{kind, number, names}], as it is now

export function note(kind, of) {
  counts.set(kind, [...(counts.get(kind) || []), of]);
  drawNotes();
}

export function notesOf(model, found) {
  standing.set(model, found);
  drawNotes();
}

function drawNotes() {
  const dropped = [...counts].map(([kind, names]) => ({ kind, number: names.length, names }));
  const lines = [...[...standing.values()].flat(), ...dropped];
  by('notes').hidden = !lines.length;
  by('counts').replaceChildren(...lines.map((one) => {
    const listed = one.names.slice(0, LISTED).flatMap((text, i) => [i ? ', ' : '', name(text)]);
    const more = one.number > LISTED ? ', …' : '';
    return make('li', {}, `${one.number.toLocaleString('en')} ${one.kind} `,
      make('span', { class: 'dim' }, '(', ...listed, `${more})`));
  }));
}
