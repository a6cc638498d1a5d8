// The page: what it shows of the model, and what it asks of the server (web/app.py).

import { ask, dropZone, groups, make, name, plural } from '/parts.js';

const by = (id) => document.getElementById(id);
const state = { classes: [], limits: null };
let queries = [];  // {file, element, answer}, the newest first
let round = 0;  // of asking: answers of an older one are of no use
let working = Promise.resolve();  // changes of the model, one after the other

function say(text, error = false) {
  const box = by('message');
  box.textContent = text;
  box.classList.toggle('error', error);
  box.hidden = !text;
  if (error) box.scrollIntoView({ block: 'nearest' });
}

function dropInto(zone, take) {
  const refuse = (text) => say(text, true);
  const fitting = (files) => {
    if (!state.limits) {  // dropped before the model has told its state: kept until then
      say('The model is still loading; the files are taken as soon as it is there.');
      ready.then((there) => there && fitting(files));
      return;
    }
    const large = files.filter((file) => file.size > state.limits.bytes * 0.95);
    const rest = files.filter((file) => !large.includes(file));
    say('');
    if (large.length) refuse(`${large[0].name} has too many bytes: shrink it.`);
    if (rest.length) take(rest);
  };
  return dropZone(zone, fitting, refuse);
}

// A request has more in it than the files.
const batches = (files, most) => groups(files, most, state.limits.bytes * 0.95);
const images = (files) => files.map((file) => ['images', file]);

// The model.

function show(found) {
  Object.assign(state, found);
  const rate = ((state.false_alarm || 0) * 100).toFixed(0);
  const noticed = state.detected === null ? ''
    : `, and ${(state.detected * 100).toFixed(0)} % of other classes’ are noticed`;
  const support = state.classes.reduce((sum, c) => sum + c.images.length, 0);
  by('about').textContent = [
    state.by,
    state.together ? 'queries of one go help each other' : null,
    plural(support, 'example'),
    state.unknown
      ? `about ${rate} % of known classes’ images are called unknown${noticed}`
      : 'nothing is called unknown before a class has two examples',
    state.file ? null : 'changes end with the server (started with --save it can keep them)',
  ].filter(Boolean).join(' · ');
  by('count').textContent = state.classes.length || '';
  by('save').hidden = !state.file;
  by('save').textContent = `Save ${state.file || ''}`;
  by('save').disabled = !(state.unsaved && state.classes.length);
  const hint = by('hint');
  hint.hidden = state.classes.length > 1;
  hint.textContent = state.classes.length
    ? 'With one class there is nothing to tell apart: add another below.'
    : 'No classes yet. Add two or more below: each with a few images, or a description.';
  by('classes').hidden = by('links').hidden = !state.classes.length;
  by('cards').replaceChildren(...state.classes.map(card));
}

function card(of) {
  const shown = of.images.slice(0, 12);
  const more = of.images.length - shown.length;
  const most = state.limits.description;
  const label = `Description of ${of.name}`;
  const text = make('textarea', { rows: 3, maxlength: most, 'aria-label': label });
  text.value = of.description;
  const describe = (event) => {
    event.preventDefault();
    change([['name', of.name], ['description', text.value]]);
  };
  const form = make('form', { onsubmit: describe }, text,
    make('div', {}, make('button', { type: 'submit' }, 'Keep description')));
  const removing = { class: 'plain', type: 'button', 'aria-label': `Remove ${of.name}` };
  return make('article', { class: 'card' },
    make('div', { class: 'head' },
      make('h3', {}, name(of.name)),
      make('button', { ...removing, onclick: () => remove(of.name) }, 'Remove')),
    of.description ? make('p', { class: 'dim' }, name(of.description)) : null,
    of.images.length
      ? make('div', { class: 'strip' }, ...shown.map((digest) => thumbnail(digest, of.name)),
        more > 0 ? make('span', { class: 'more' }, `+ ${more}`) : null)
      : make('p', { class: 'dim' }, 'No images: known by its description.'),
    make('details', {},
      make('summary', {}, of.description ? 'Change description' : 'Describe'), form),
    dropInto(make('label', { class: 'drop' },
      make('input', { type: 'file', accept: 'image/*', multiple: '' }),
      make('span', {}, make('b', {}, 'Drop examples'), ' or choose files')),
    (files) => change([['name', of.name]], files)));
}

const thumbnail = (digest, label) =>
  make('img', { class: 'item', src: `/thumbnails/${digest}`, alt: `example of ${label}` });

// Sends a change; an image that can't be read doesn't keep the others out.
function change(fields, files = []) {
  working = working.then(async () => {
    const problems = [];
    let changed = false;
    const send = async (group) => {
      try {
        show(await ask('/classes', [...fields, ...images(group)]));
        changed = true;
      } catch (error) {
        if (group.length < 2) problems.push(error.message);
        else for (const file of group) await send([file]);
      }
    };
    const all = batches(files, state.limits.images);
    if (!all.length) await send([]);
    for (const [i, group] of all.entries()) {
      if (all.length > 1) say(`Adding images: part ${i + 1} of ${all.length}…`);
      await send(group);
    }
    say(problems.slice(0, 5).join('\n'), problems.length > 0);
    if (changed) askAgain();
    return changed;
  });
  return working;
}

function remove(label) {
  const of = state.classes.find((c) => c.name === label);
  const count = of.images.length;
  const what = count ? `its ${plural(count, 'example')}` : 'its description';
  if (!window.confirm(`Remove “${label}” and ${what}?`)) return;
  working = working.then(async () => {
    try {
      show(await ask('/remove', [['name', label]]));
      say('');
      askAgain();
    } catch (error) { say(error.message, true); }
  });
}

// Images to classify.

function query(files) {
  const added = files.map((file) => {
    const waiting = make('p', { class: 'dim' }, name(file.name));
    return { file, element: make('article', { class: 'answer' }, waiting), answer: null };
  });
  queries = [...added, ...queries];
  by('answers').prepend(...added.map((q) => q.element));
  askAgain(state.together ? queries : queries.filter((q) => !q.answer));
}

// Asks about all images on the page, or some; a later call puts an end to this one.
async function askAgain(wanted = queries) {
  const mine = ++round;
  by('tools').hidden = !queries.length;
  for (const q of wanted) {
    if (q.answer) q.element.classList.add('old');
    q.answer = null;
  }
  by('progress').textContent = plural(queries.length, 'image');
  if (!state.classes.length) return;
  const open = queries.filter((q) => !q.answer);
  let done = 0;
  const most = state.together ? state.limits.images : 1;
  for (const group of batches(open.map((q) => q.file), most)) {
    const asked = open.slice(done, done + group.length);
    if (open.length > 1) by('progress').textContent = `${done} of ${open.length} answered…`;
    let answers;
    try {
      answers = await ask('/predict', images(group));
    } catch (error) {
      answers = asked.map(() => ({ error: error.message }));
    }
    if (mine !== round) return;
    asked.forEach((q, i) => { q.answer = answers[i]; draw(q); });
    done += group.length;
  }
  by('progress').textContent = plural(queries.length, 'image');
}

function draw(q) {
  const { answer, element } = q;
  element.classList.remove('old');
  if (answer.error) {
    element.replaceChildren(make('p', { class: 'note' }, name(answer.error)));
    return;
  }
  const figure = (source, alt, text) =>
    make('figure', {}, make('img', { src: source, alt }), make('figcaption', {}, text));
  const speaks = make('span', {}, 'what speaks for ', name(answer.label));
  const heat = answer.heat ? figure(answer.heat, `heat map of ${q.file.name}`, speaks) : null;
  if (heat) heat.className = 'heat';
  const bars = answer.shares.flatMap(([label, share]) => {
    const bar = make('i');
    bar.style.width = `${share * 100}%`;
    return [make('span', { class: 'who' }, name(label)),
      make('span', { class: 'meter', 'aria-hidden': 'true' }, bar),
      make('span', { class: 'part' }, `${(share * 100).toFixed(1)} %`)];
  });
  const near = answer.nearest.map((n) => make('li', {},
    n.image ? make('img', { src: `/thumbnails/${n.image}`, alt: '' }) : null,
    make('span', {}, name(n.label), make('br'),
      make('span', { class: 'dim' }, name(n.name), ` · ${n.similarity.toFixed(2)}`))));
  const unlike = 'Less like any class than nearly all examples are. Of the known classes:';
  element.replaceChildren(
    make('div', { class: 'seen' }, figure(answer.image, q.file.name, name(q.file.name)), heat),
    make('div', {},
      make('h3', {}, name(answer.unknown ? 'unknown' : answer.label)),
      answer.unknown ? make('p', { class: 'small' }, unlike) : null,
      make('div', { class: 'shares' }, ...bars),
      near.length ? make('p', { class: 'small' }, 'Most similar examples (cosine)') : null,
      near.length ? make('ul', { class: 'near' }, ...near) : null));
  element.classList.toggle('unknown', answer.unknown);
}

// An image that misses its zone would else be opened in place of the page.
for (const kind of ['dragover', 'drop']) {
  window.addEventListener(kind, (event) => event.preventDefault());
}

dropInto(by('ask'), query);

let examples = [];  // of the new class
const inviting = by('examples').querySelector('span').cloneNode(true);

function choose(files) {
  examples = files;
  const chosen = make('span', {}, `${plural(files.length, 'example')} chosen; drop more`);
  by('examples').querySelector('span').replaceWith(files.length ? chosen : inviting);
}
dropInto(by('examples'), (files) => choose([...examples, ...files]));

by('new').addEventListener('submit', async (event) => {
  event.preventDefault();
  const fields = [['name', by('name').value], ['description', by('description').value]];
  if (!await change(fields, examples)) return;
  by('new').reset();
  choose([]);
  by('name').focus();
});

by('clear').addEventListener('click', () => {
  queries = [];
  round += 1;
  by('answers').replaceChildren();
  by('tools').hidden = true;
});

by('save').addEventListener('click', () => {
  working = working.then(async () => {
    try {
      show(await ask('/save', []));
      say(`Saved ${state.file}.`);
    } catch (error) { say(error.message, true); }
  });
});

const ready = ask('/state').then((found) => {
  show(found);
  by('name').maxLength = state.limits.name;
  by('description').maxLength = state.limits.description;
  return true;
}, (error) => { say(error.message, true); return false; });
