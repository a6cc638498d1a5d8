'use strict';
// Everything from outside goes into the page as text; nothing is ever read as HTML.

const by = (id) => document.getElementById(id);
const state = { classes: [], limits: null };
let queries = [];  // {file, element, answer}, the newest first
let round = 0;  // of asking: answers of an older one are of no use
let working = Promise.resolve();  // changes of the model, one after the other

function make(tag, settings = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(settings)) {
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else if (key === 'class') element.className = value;
    else element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const name = (text) => make('bdi', {}, text);
const plural = (n, what) => `${n} ${what}${n === 1 ? '' : 's'}`;

function say(text, error = false) {
  const box = by('message');
  box.textContent = text;
  box.classList.toggle('error', error);
  box.hidden = !text;
  if (error) box.scrollIntoView({ block: 'nearest' });
}

async function ask(address, fields) {
  const form = new FormData();
  for (const [key, value] of fields || []) {
    form.append(key, value);
    if (value.size > state.limits.bytes) {
      throw new Error(`${value.name} is larger than ${Math.floor(state.limits.bytes / 2 ** 20)} MB: shrink it.`);
    }
  }
  let response;
  try {
    response = await fetch(address, fields ? { method: 'POST', body: form } : {});
  } catch {
    throw new Error('No answer: the server has ended, or a file can no longer be read.');
  }
  let found = null;
  try { found = await response.json(); } catch { /* said below */ }
  if (!response.ok || found === null) {
    throw new Error((found && found.error) || `The server answers ${response.status}.`);
  }
  return found;
}

// Files in groups that one request may bring.
function groups(files, most) {
  const found = [];
  let bytes = Infinity;
  for (const file of files) {
    const group = found.at(-1);
    bytes += file.size;
    if (!group || group.length >= most || bytes > state.limits.bytes * 0.95) {
      found.push([file]);
      bytes = file.size;
    } else group.push(file);
  }
  return found;
}

const pictures = (files) => files.map((file) => ['pictures', file]);

// The model.

function show(found) {
  Object.assign(state, found);
  const support = state.classes.reduce((sum, c) => sum + c.pictures.length, 0);
  by('about').textContent = [
    `encoder ${state.encoder}`,
    state.together ? 'queries of one go help each other' : null,
    plural(support, 'example'),
    state.unknown
      ? `about ${(state.false_alarm * 100).toFixed(0)} % of pictures of known classes are called unknown`
      : 'nothing is called unknown before a class has two examples',
  ].filter(Boolean).join(' · ');
  by('count').textContent = state.classes.length || '';
  by('save').hidden = !state.file;
  by('save').textContent = `Save ${state.file || ''}`;
  by('save').disabled = !state.classes.length;
  const hint = by('hint');
  hint.hidden = state.classes.length > 1;
  hint.textContent = state.classes.length
    ? 'With one class there is nothing to tell apart: add another below.'
    : 'No classes yet. Add two or more below: each with a few pictures, or a description.';
  by('classes').hidden = by('links').hidden = !state.classes.length;
  by('cards').replaceChildren(...state.classes.map(card));
}

function card(of) {
  const shown = of.pictures.slice(0, 12);
  const more = of.pictures.length - shown.length;
  const text = make('textarea', { rows: 3, maxlength: state.limits.description });
  text.setAttribute('aria-label', `Description of ${of.name}`);
  text.value = of.description;
  const form = make('form', {
    onsubmit: (event) => { event.preventDefault(); change([['name', of.name], ['description', text.value]]); },
  }, text, make('div', {}, make('button', { type: 'submit' }, 'Keep description')));
  return make('article', { class: 'card' },
    make('div', { class: 'head' },
      make('h3', {}, name(of.name)),
      make('button', { class: 'plain', type: 'button', 'aria-label': `Remove ${of.name}`, onclick: () => remove(of.name) }, 'Remove')),
    of.description ? make('p', { class: 'dim' }, name(of.description)) : null,
    of.pictures.length
      ? make('div', { class: 'strip' }, ...shown.map((digest) => thumbnail(digest, of.name)),
        more > 0 ? make('span', { class: 'more' }, `+ ${more}`) : null)
      : make('p', { class: 'dim' }, 'No pictures: known by its description.'),
    make('details', {}, make('summary', {}, of.description ? 'Change description' : 'Describe'), form),
    dropZone(make('label', { class: 'drop' },
      make('input', { type: 'file', accept: 'image/*', multiple: '' }),
      make('span', {}, make('b', {}, 'Drop examples'), ' or choose files')),
    (files) => change([['name', of.name]], files)));
}

const thumbnail = (digest, label) =>
  make('img', { class: 'item', src: `/thumbnails/${digest}`, alt: `example of ${label}`, loading: 'lazy' });

// Sends a change; a picture that can't be read doesn't keep the others out.
function change(fields, files = []) {
  working = working.then(async () => {
    const problems = [];
    let changed = false;
    const send = async (group) => {
      try {
        show(await ask('/classes', [...fields, ...pictures(group)]));
        changed = true;
      } catch (error) {
        if (group.length < 2) problems.push(error.message);
        else for (const file of group) await send([file]);
      }
    };
    const all = groups(files, state.limits.pictures);
    if (!all.length) await send([]);
    for (const [i, group] of all.entries()) {
      if (all.length > 1) say(`Adding ${plural(files.length, 'picture')}: part ${i + 1} of ${all.length}…`);
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
  const what = of.pictures.length ? `its ${plural(of.pictures.length, 'example')}` : 'its description';
  if (!window.confirm(`Remove “${label}” and ${what}?`)) return;
  working = working.then(async () => {
    try {
      show(await ask('/remove', [['name', label]]));
      say('');
      askAgain();
    } catch (error) { say(error.message, true); }
  });
}

// Pictures to classify.

function query(files) {
  const added = files.map((file) => ({ file, element: make('article', { class: 'answer' }), answer: null }));
  for (const q of added) q.element.append(make('p', { class: 'dim' }, name(q.file.name)));
  queries = [...added, ...queries];
  by('answers').prepend(...added.map((q) => q.element));
  askAgain(state.together ? queries : queries.filter((q) => !q.answer));
}

// Asks about all pictures on the page, or some; a later call puts an end to this one.
async function askAgain(wanted = queries) {
  const mine = ++round;
  by('tools').hidden = !queries.length;
  if (!state.classes.length) return;
  for (const q of wanted) {
    if (q.answer) q.element.classList.add('old');
    q.answer = null;
  }
  const open = queries.filter((q) => !q.answer);
  let done = 0;
  const most = state.together ? state.limits.pictures : 1;
  for (const group of groups(open.map((q) => q.file), most)) {
    const asked = open.slice(done, done + group.length);
    by('progress').textContent = open.length > 1 ? `${done} of ${open.length} answered…` : '';
    let answers;
    try {
      answers = await ask('/predict', pictures(group));
    } catch (error) {
      answers = asked.map(() => ({ error: error.message }));
    }
    if (mine !== round) return;
    asked.forEach((q, i) => { q.answer = answers[i]; draw(q); });
    done += group.length;
  }
  by('progress').textContent = plural(queries.length, 'picture');
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
  const heat = answer.heat
    ? figure(answer.heat, `heat map of ${q.file.name}`, `what speaks for ${answer.label}`) : null;
  if (heat) heat.className = 'heat';
  const bars = answer.shares.flatMap(([label, share]) => {
    const bar = make('i');
    bar.style.width = `${share * 100}%`;
    return [make('span', { class: 'who' }, name(label)),
      make('span', { class: 'meter', 'aria-hidden': 'true' }, bar),
      make('span', { class: 'part' }, `${(share * 100).toFixed(1)} %`)];
  });
  const near = answer.nearest.map((n) => make('li', {},
    n.picture ? make('img', { src: `/thumbnails/${n.picture}`, alt: '' }) : null,
    make('span', {}, name(n.label), make('br'),
      make('span', { class: 'dim' }, name(n.name), ` · ${n.similarity.toFixed(2)}`))));
  element.replaceChildren(
    make('div', { class: 'seen' }, figure(answer.picture, q.file.name, name(q.file.name)), heat),
    make('div', {},
      make('h3', {}, name(answer.unknown ? 'unknown' : answer.label)),
      answer.unknown
        ? make('p', { class: 'small' }, 'Less like any class than nearly all examples are. Of the known classes:') : null,
      make('div', { class: 'shares' }, ...bars),
      near.length ? make('p', { class: 'small' }, 'Most similar examples (cosine)') : null,
      near.length ? make('ul', { class: 'near' }, ...near) : null));
  element.classList.toggle('unknown', answer.unknown);
}

// Dropping.

function dropZone(zone, take) {
  const input = zone.querySelector('input');
  const use = (list) => {
    const files = [...list].filter((file) => file.size);
    if (files.length) take(files);
  };
  input.addEventListener('change', () => { use(input.files); input.value = ''; });
  zone.addEventListener('dragover', (event) => { event.preventDefault(); zone.classList.add('over'); });
  zone.addEventListener('dragleave', () => zone.classList.remove('over'));
  zone.addEventListener('drop', (event) => {
    event.preventDefault();
    zone.classList.remove('over');
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.());
    if (entries.some((entry) => entry?.isDirectory)) {
      say('A folder can not be dropped: open it and drop the pictures in it.', true);
    } else use(event.dataTransfer.files);
  });
  return zone;
}

// A picture that misses its zone would else be opened in place of the page.
for (const kind of ['dragover', 'drop']) window.addEventListener(kind, (event) => event.preventDefault());

dropZone(by('ask'), query);

let examples = [];
const keepExamples = (files) => {
  examples = [...examples, ...files];
  by('examples').querySelector('span').textContent = `${plural(examples.length, 'example')} chosen; drop more`;
};
const emptyExamples = by('examples').querySelector('span').cloneNode(true);
dropZone(by('examples'), keepExamples);

by('new').addEventListener('submit', async (event) => {
  event.preventDefault();
  const fields = [['name', by('name').value], ['description', by('description').value]];
  if (!await change(fields, examples)) return;
  by('new').reset();
  examples = [];
  by('examples').querySelector('span').replaceWith(emptyExamples.cloneNode(true));
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

ask('/state').then((found) => {
  show(found);
  by('name').maxLength = state.limits.name;
  by('description').maxLength = state.limits.description;
}, (error) => say(error.message, true));
