// The page: what it holds, and which of its two parts is seen (serve/app.py answers).

import { classes } from '/classes.js';
import { defects } from '/defects.js';
import { ask, by } from '/parts.js';
import { closing } from '/images.js';
import { say, settle, work } from '/work.js';

const state = { classes: { classes: [], limits: null }, defects: { number: 0, types: [], limits: null } };
const TITLES = { classes: 'Classify images', defects: 'Find defects' };
const SAVES = { classes: '/save', defects: '/defects/save' };
let part = 'classes';

function change() {
  const of = state[part];
  const save = by('save');
  save.hidden = !of.file;
  save.textContent = `Save ${of.file || ''}`;
  const something = part === 'classes' ? of.classes.length : of.number;
  save.dataset.off = of.unsaved && something ? '' : 'Nothing is new since the last save';
  by('kept').hidden = Boolean(of.file);
  settle();
}

function see(which) {
  part = which;
  for (const [key, title] of Object.entries(TITLES)) {
    const tab = by(`tab-${key}`);
    by(`part-${key}`).hidden = key !== which;
    tab.setAttribute('aria-selected', String(key === which));
    tab.tabIndex = key === which ? 0 : -1;
    if (key === which) by('title').textContent = title;
  }
  change();
}

for (const key of Object.keys(TITLES)) {
  const tab = by(`tab-${key}`);
  tab.addEventListener('click', () => see(key));
  tab.addEventListener('keydown', (event) => {
    if (!['ArrowLeft', 'ArrowRight'].includes(event.key)) return;
    const other = key === 'classes' ? 'defects' : 'classes';
    see(other);
    by(`tab-${other}`).focus();
  });
}

by('save').addEventListener('click', () => work(`Saving ${state[part].file}`, async () => {
  rooms[part].show(await ask(SAVES[part], []));
  say(`Saved ${state[part].file}.`);
}));

// An image that misses its zone would else be opened in place of the page.
for (const kind of ['dragover', 'drop']) {
  window.addEventListener(kind, (event) => event.preventDefault());
}
closing();

const loaded = Promise.all([ask('/state'), ask('/defects')]);
const ready = loaded.then(() => true, (error) => { say(error.message, true); return false; });
const rooms = {
  classes: classes(state.classes, ready, change),
  defects: defects(state.defects, ready, change),
};
loaded.then(([found, normal]) => {
  // On a first visit classes are made before anything is asked.
  if (!found.classes.length) by('part-classes').append(by('asking'));
  rooms.classes.show(found);
  rooms.defects.show({ ...normal, limits: found.limits, reads: found.reads });
  by('name').maxLength = by('kind-name').maxLength = found.limits.name;
  by('description').maxLength = found.limits.description;
  if (found.first === 'defects') see('defects');
  for (const room of Object.values(rooms)) room.redraw();
}, () => {});
