// Which class is it: classes, their examples, and answers.

import { HEAD, drawn, grouped, row, summary } from '/answers.js';
import { ask, by, make, name, percent, plural } from '/parts.js';
import { download, table } from '/csv.js';
import { dropZone, taking, tree } from '/drops.js';
import { zoomable } from '/images.js';
import { queries } from '/queries.js';
import { sending } from '/sending.js';
import { notesOf, say, settle, work } from '/work.js';

const MANY = 8;  // classes from which an answer offers only the likely ones by a button

export function classes(state, ready, changed) {
  const asked = queries({
    id: 'ask', state, address: '/predict', together: () => state.together, waits, draw,
    groups: grouped,
    summary: (answered, wrong) => summary(state, answered, wrong),
    save: (all) => download('answers.csv', table([HEAD, ...all.map(row)])),
  });

  const take = (use) => taking(state, ready, use);
  const change = sending(state, ready, show, asked.again);
  const adding = (reason, fields, files, then) => change(reason, [['/classes', fields, files]], then);

  // The model.

  function show(found) {
    Object.assign(state, found);
    const support = state.classes.reduce((sum, c) => sum + c.images.length, 0);
    const [right, of] = state.held_out;
    const noticed = state.detected === null ? ''
      : `, and ${percent(state.detected)} of other classes’ are noticed`;
    by('about').textContent = [
      state.by,
      state.together ? 'queries of one go help each other' : null,
      support ? plural(support, 'example') : null,
      of ? `${right} of ${of} are called right by the others, each held out` : null,
      state.unknown
        ? `about ${percent(state.false_alarm || 0)} of known classes’ images are called unknown${noticed}`
        : state.classes.length ? 'nothing is called unknown before a class has two examples' : null,
    ].filter(Boolean).join(' · ');
    by('count').textContent = state.classes.length || '';
    const hint = by('hint');
    hint.hidden = state.classes.length > 1;
    hint.textContent = state.classes.length
      ? 'With one class there is nothing to tell apart: add another.'
      : 'No classes yet. Add two or more: each with a few images, or a description. '
        + 'Images to classify may be dropped before that, and wait.';
    by('classes').hidden = by('links').hidden = !state.classes.length;
    by('cards').replaceChildren(...state.classes.map(card));
    notesOf('classes', state.notes);
    changed();
    settle();
  }

  function card(of) {
    const shown = of.images.slice(0, 12);
    const more = of.images.length - shown.length;
    const most = state.limits.description;
    const text = make('textarea', { rows: 3, maxlength: most, 'aria-label': `Description of ${of.name}` });
    text.value = of.description;
    const describe = (event) => {
      event.preventDefault();
      adding(`Describing ${of.name}`, [['name', of.name], ['description', text.value]], []);
    };
    const form = make('form', { onsubmit: describe }, text,
      make('div', {}, make('button', { type: 'submit', 'data-changes': '' }, 'Keep description')));
    const removing = { class: 'plain', type: 'button', 'data-changes': '', 'aria-label': `Remove ${of.name}` };
    return make('article', { class: 'card' },
      make('div', { class: 'head' },
        make('h3', {}, name(of.name)),
        make('button', { ...removing, onclick: () => remove(of) }, 'Remove')),
      of.description ? make('p', { class: 'dim' }, name(of.description)) : null,
      of.images.length
        ? make('div', { class: 'strip' }, ...shown.map((digest, i) => example(of, digest, i)),
          more > 0 ? make('span', { class: 'more' }, `+ ${more}`) : null)
        : make('p', { class: 'dim' }, 'No images: known by its description.'),
      make('details', {},
        make('summary', {}, of.description ? 'Change description' : 'Describe'), form),
      dropZone({
        text: 'Drop examples', label: `Examples of ${of.name}`,
        take: take((files) => adding(`Adding ${plural(files.length, 'image')} to ${of.name}`,
          [['name', of.name]], files)),
      }));
  }

  function example(of, digest, i) {
    const called = `example ${i + 1} of ${of.name}`;
    const forget = () => work(`Removing an example of ${of.name}`, async () => {
      show(await ask('/forget', [['name', of.name], ['image', digest]]));
      say(`An example of “${of.name}” was removed.`);
      asked.again();
    });
    return make('span', { class: 'example' },
      zoomable(`/thumbnails/${digest}`, called, { className: 'item' }),
      make('button', { class: 'forget', type: 'button', 'data-changes': '', onclick: forget,
        'data-hint': 'Remove this example', 'aria-label': `Remove ${called}` }, '×'));
  }

  function remove(of) {
    const count = of.images.length;
    const what = count ? `its ${plural(count, 'example')}` : 'its description';
    if (!window.confirm(`Remove “${of.name}” and ${what}?`)) return;
    work(`Removing ${of.name}`, async () => {
      show(await ask('/remove', [['name', of.name]]));
      say('');
      asked.again();
    });
  }

  // A whole tree of folders: classes first, then what is asked about.
  function plant(files) {
    const found = tree(files);
    const all = [...found.classes].map(([label, some]) => ['/classes', [['name', label]], some]);
    const number = all.reduce((sum, [,, some]) => sum + some.length, 0);
    const told = [
      all.length ? `${plural(number, 'example')} of ${all.length} class${all.length > 1 ? 'es' : ''}` : '',
      found.queries.length ? `${plural(found.queries.length, 'image')} to classify` : '',
    ].filter(Boolean).join(' and ');
    if (!told) {
      say('There is no folder of images in that: drop the folder that holds a folder for each class.', true);
      return;
    }
    const there = all.length
      ? change(`Adding ${told}`, all, () => say(`Added ${told}.`)) : Promise.resolve(true);
    there.then(() => { if (found.queries.length) asked.add(found.queries); });
  }

  // Answers.

  function waits() {
    if (!state.limits) return 'the model is loading';
    if (!state.classes.length) return 'there is no class yet. Add two or more, then the answers come.';
    if (state.classes.length < 2 && !state.unknown) {
      return 'with one class there is nothing to tell apart. Add another, then the answers come.';
    }
    return '';
  }

  function draw(q) {
    q.element.classList.toggle('unknown', q.answer.unknown);
    return drawn(state, q, mend(q));
  }

  // Puts a wrongly answered image into its class.
  function mend(q) {
    const into = (label) => adding(`Adding ${q.path} to ${label}`, [['name', label]], [q], () => {
      asked.remove(q);
      say(`${q.path} is now an example of “${label}”.`);
    });
    const likely = q.answer.shares.map(([label]) => label);
    const all = state.classes.map((c) => c.name);
    const few = all.length <= MANY ? all : likely;
    const buttons = few.map((label) => make('button', { type: 'button', 'data-changes': '',
      'data-hint': `Add it to the examples of ${label}`, onclick: () => into(label) }, name(label)));
    const rest = all.filter((label) => !few.includes(label));
    const other = make('select', { 'aria-label': `another class for ${q.path}` },
      make('option', { value: '' }, 'another class'),
      ...rest.map((label) => make('option', { value: label }, label)));
    other.addEventListener('change', () => { if (other.value) into(other.value); });
    return make('div', { class: 'mend' }, make('span', { class: 'dim' }, 'Make it an example of'),
      ...buttons, rest.length ? other : null);
  }

  // Areas and forms.

  by('ask').replaceWith(dropZone({
    text: 'Drop images here', label: 'Images to classify', wide: true, take: take(asked.add),
  }));
  by('tree').replaceWith(dropZone({
    text: 'Drop a folder of class folders', label: 'Folders of classes', folders: true,
    take: take(plant),
  }));
  let examples = [];  // of the new class
  const choose = (files) => {
    examples = files;
    by('chosen').replaceChildren(...files.map(({ file, path }) => zoomable(null, path, { file })));
    by('chosen-count').textContent = files.length ? `${plural(files.length, 'example')} chosen` : '';
    by('unchoose').hidden = !files.length;
  };
  by('unchoose').addEventListener('click', () => choose([]));
  by('examples').replaceWith(dropZone({
    text: 'Drop example images here', label: 'Examples of the new class',
    take: take((files) => choose([...examples, ...files])),
  }));
  by('new').addEventListener('submit', (event) => {
    event.preventDefault();
    const [called, some] = [by('name').value, examples];
    const fields = [['name', called], ['description', by('description').value]];
    adding(`Adding class ${called}`, fields, some, () => {
      by('new').reset();
      choose([]);
      by('name').focus();
    });
  });
  return { show, redraw: asked.redraw };
}
