// Images that are asked about: what is asked when, and a list that stays short.

import { ask, by, groups, make, name, plural } from '/parts.js';
import { zoomable } from '/images.js';
import { note, say } from '/work.js';

const FEW = 5;  // so many answers are shown as they came
const PAGE = 5;  // so many of a group at once

// The queries of a model.
//   id: of the elements <id>-list, <id>-summary, <id>-progress, <id>-tools, <id>-csv, <id>-clear
//   address: of the server; most(): images of a request, all asked together or one by one
//   waits(): why nothing can be asked now; '' if it can
//   draw(query): what is shown of an answer
//   groups(answered): [{key, title, text, items, open}], the first to look at first
//   summary(answered): a sentence; rows(queries): cells of a table, with their head; csv: its name
export function queries({ id, state, address, together, waits, draw, groups: grouped, summary,
  save }) {
  let all = [];  // {file, path, label, element, answer}, the newest drop first
  let round = 0;  // of asking: answers of an older one are of no use
  const opened = new Map();  // what a person opened or closed of the groups
  const shown = new Map();  // how many of a group
  const part = (what) => by(`${id}-${what}`);

  function add(files) {
    const added = files.map(({ file, path, label = null }) => ({
      file, path, label, element: make('article', { class: 'answer' }), answer: null,
    }));
    all = [...added, ...all];
    for (const q of added) drawWaiting(q);
    again(together() ? all : all.filter((q) => !q.answer));
  }

  // Asks about all images on the page, or some; a later call puts an end to this one.
  async function again(wanted = all) {
    const mine = ++round;
    for (const q of wanted) {
      if (q.answer) q.element.classList.add('old');
      q.answer = null;
    }
    redraw();
    if (waits()) return;
    const open = all.filter((q) => !q.answer);
    let done = 0;
    const most = together() ? state.limits.images : 1;
    for (const group of groups(open, most, state.limits.bytes * 0.95)) {
      progress(done, open.length);
      let answers;
      try {
        answers = await ask(address, group.map((q) => ['images', q.file]));
      } catch (error) {
        answers = group.map(() => ({ error: error.message }));
      }
      if (mine !== round) return;
      group.forEach((q, i) => {
        if (!q.noted && answers[i].error) note('files that could not be read', q.path);
        if (!q.noted) for (const kind of answers[i].odd || []) note(kind, q.path);
        if (!q.noted && answers[i].copy) note('images that are among the examples already', q.path);
        q.noted = true;
        q.answer = answers[i];
        q.element.classList.remove('old');
        q.element.replaceChildren(...(q.answer.error ? unread(q) : draw(q)));
      });
      done += group.length;
      redraw();
    }
    progress(done, open.length);
  }

  function drawWaiting(q) {
    q.element.replaceChildren(
      make('div', { class: 'seen' }, zoomable(null, q.path, { file: q.file })),
      make('div', {}, make('p', { class: 'dim' }, name(q.path))));
  }

  const unread = (q) => [make('div', { class: 'seen' }),
    make('p', { class: 'note' }, name(q.answer.error))];

  function progress(done, of) {
    part('progress').hidden = done >= of || of < 2;
    part('progress').max = of;
    part('progress').value = done;
    part('summary').setAttribute('aria-busy', String(done < of));
  }

  function redraw() {
    const answered = all.filter((q) => q.answer && !q.answer.error);
    const waiting = all.filter((q) => !q.answer);
    const wrong = all.filter((q) => q.answer?.error);
    part('tools').hidden = !all.length;
    part('csv').disabled = !(answered.length || wrong.length);
    part('csv').title = part('csv').disabled ? 'There is no answer yet' : '';
    const reason = waiting.length ? waits() : '';
    part('summary').replaceChildren(...(reason
      ? [`${plural(waiting.length, 'image')} ${waiting.length > 1 ? 'wait' : 'waits'}: ${reason}`]
      : waiting.length ? [`${all.length - waiting.length} of ${plural(all.length, 'image')} answered…`]
        : all.length ? summary(answered, wrong) : []));
    if (all.length <= FEW) {
      part('list').replaceChildren(...all.map((q) => q.element));
      return;
    }
    const sets = [
      { key: ' waiting', title: 'Waiting', text: '', items: waiting, open: false },
      ...grouped(answered),
      { key: ' unread', title: 'Not read', text: 'These files gave no image.', items: wrong,
        open: true },
    ];
    part('list').replaceChildren(...sets.filter((set) => set.items.length).map(drawGroup));
  }

  function drawGroup({ key, title, text, items, open }) {
    const most = shown.get(key) || PAGE;
    const thumbs = items.slice(0, 8).filter((q) => q.answer?.image).map((q) => (
      make('img', { src: q.answer.image, alt: '', class: 'tiny' })));
    const box = make('details', { class: 'group' },
      make('summary', {}, make('b', {}, title), ` ${items.length}`,
        make('span', { class: 'strip' }, ...thumbs)),
      text ? make('p', { class: 'small' }, text) : null,
      ...items.slice(0, most).map((q) => q.element),
      items.length > most ? make('button', {
        type: 'button',
        onclick: () => { shown.set(key, most + PAGE); redraw(); },
      }, `${Math.min(PAGE, items.length - most)} more of ${items.length - most}`) : null);
    box.open = opened.has(key) ? opened.get(key) : open;
    box.addEventListener('toggle', () => opened.set(key, box.open));
    return box;
  }

  // Takes an image away, as when it has become an example.
  function remove(q) {
    all = all.filter((other) => other !== q);
    redraw();
  }

  part('clear').addEventListener('click', () => {
    all = [];
    round += 1;
    say('');
    progress(0, 0);
    redraw();
  });
  part('csv').addEventListener('click', () => save(all.filter((q) => q.answer)));
  return { add, again, remove, redraw };
}
