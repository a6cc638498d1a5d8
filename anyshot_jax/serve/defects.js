// Is there a defect: normal images, verdicts on others, and types of defects.

import { ask, by, make, name, percent, plural } from '/parts.js';
import { download, table } from '/csv.js';
import { dropZone, goods, taking } from '/drops.js';
import { zoomable } from '/images.js';
import { queries } from '/queries.js';
import { sending } from '/sending.js';
import { HEAD, drawn, grouped, row, summary } from '/verdicts.js';
import { say, settle, work } from '/work.js';

export function defects(state, ready, changed) {
  const judged = queries({
    id: 'judge', state, address: '/defects/judge', together: () => false,
    waits: () => (!state.limits ? 'the model is loading'
      : state.number ? '' : 'no normal image is known yet. Add some, then the verdicts come.'),
    draw: (q) => drawn(state, q, mend(q)), groups: grouped, summary,
    save: (all) => download('verdicts.csv', table([HEAD, ...all.map(row)])),
  });

  const take = (use) => taking(state, ready, use);
  const send = sending(state, ready, show, judged.again);
  const learn = (files, then) => send(`Learning ${plural(files.length, 'normal image')}`,
    [['/defects/normal', [], files]], then);
  const toType = (called, files, then) => send(`Adding ${plural(files.length, 'example')} of ${called}`,
    [['/defects/types', [['name', called]], files]], then);

  function show(found) {
    Object.assign(state, found);
    by('detector').textContent = [
      state.by, plural(state.number, 'normal image'),
      state.products.length ? `of ${state.products.join(', ')}` : null,
      state.types.length ? plural(state.types.length, 'type') : null,
    ].filter(Boolean).join(' · ');
    by('normal-count').textContent = state.number || '';
    by('promise').replaceChildren(...promised());
    by('normal-clear').hidden = !state.number;
    const shown = state.normal.slice(-24);
    const more = state.number - shown.length;
    by('normal-strip').replaceChildren(...shown.map(normal),
    ...(more > 0 && shown.length ? [make('span', { class: 'more' }, `+ ${more}`)] : []));
    by('kinds').hidden = !state.threshold;
    by('kind-cards').replaceChildren(...state.types.map(card));
    changed();
    settle();
  }

  function promised() {
    if (!state.number) {
      return [make('p', {}, 'Show it what is right: images of parts without a defect, taken as the '
        + 'ones to judge will be. No image of a defect is needed. ',
      `For ${percent(state.false_alarm || 0.01)} of false alarms it takes `
        + `${Math.ceil(1 / (state.false_alarm || 0.01) - 1)} normal images; fewer give a looser threshold.`)];
    }
    return [...state.promise.map((text) => make('p', { class: state.loose ? 'note' : null }, text)),
      ...state.notes.map((text) => make('p', { class: 'note' }, name(text)))];
  }

  function normal(digest, i) {
    const called = `normal image ${i + 1}`;
    const forget = () => work('Removing a normal image', async () => {
      show(await ask('/defects/forget', [['image', digest]]));
      say('A normal image was removed; the threshold follows.');
      judged.again();
    });
    return make('span', { class: 'example' },
      zoomable(`/defects/images/${digest}`, called, { className: 'item' }),
      make('button', { class: 'forget', type: 'button', 'data-changes': '', onclick: forget,
        'data-hint': 'Remove this normal image', 'aria-label': `Remove ${called}` }, '×'));
  }

  function card(of) {
    const forget = () => work(`Removing the type ${of.name}`, async () => {
      show(await ask('/defects/remove', [['name', of.name]]));
      judged.again();
    });
    return make('article', { class: 'card' },
      make('div', { class: 'head' }, make('h3', {}, name(of.name)),
        make('button', { class: 'plain', type: 'button', 'data-changes': '', onclick: forget,
          'aria-label': `Remove the type ${of.name}` }, 'Remove')),
      make('p', { class: 'dim' }, plural(of.number, 'example')),
      make('div', { class: 'strip' }, ...of.images.slice(0, 12).map((digest, i) => zoomable(
        `/defects/images/${digest}`, `example ${i + 1} of ${of.name}`, { className: 'item' }))),
      dropZone({ text: 'Drop examples', label: `Examples of ${of.name}`,
        take: take((files) => toType(of.name, files)) }));
  }

  // A folder with good, test and types in it; or one of normal images only.
  async function plant(files) {
    const found = goods(files);
    if (!found) {
      await learn(files);
      return;
    }
    await learn(found.normal);
    for (const [called, some] of found.types) await toType(called, some);
    if (!found.queries.length) return;
    judged.add(found.queries);
    say(`Learned ${plural(found.normal.length, 'normal image')}; judging `
      + `${plural(found.queries.length, 'image')}.`);
  }

  // What a person can say against a verdict.
  function mend(q) {
    const normal = make('button', { type: 'button', 'data-changes': '',
      'data-hint': 'Add it to the normal images',
      onclick: () => learn([q], () => {
        judged.remove(q);
        say(`${q.path} is now one of the normal images.`);
      }) }, 'normal');
    const into = (called) => toType(called, [q], () => {
      judged.remove(q);
      say(`${q.path} is now an example of “${called}”.`);
    });
    const types = state.types.slice(0, 6).map((of) => make('button', { type: 'button',
      'data-changes': '', onclick: () => into(of.name) }, name(of.name)));
    return make('div', { class: 'mend' }, make('span', { class: 'dim' }, 'Learn it as'),
      state.products.length > 1 ? null : normal, ...types);
  }

  by('judge').replaceWith(dropZone({ text: 'Drop images to judge', wide: true,
    label: 'Images to judge', take: take(judged.add) }));
  by('normal').replaceWith(dropZone({ text: 'Drop normal images here', wide: true,
    label: 'Normal images', take: take(plant) }));
  by('normal-clear').addEventListener('click', () => {
    if (!window.confirm(`Forget all ${state.number} normal images and types?`)) return;
    work('Beginning anew', async () => {
      show(await ask('/defects/clear', []));
      judged.again();
    });
  });
  let examples = [];
  const choose = (files) => {
    examples = files;
    by('kind-chosen').replaceChildren(...files.map(({ file, path }) => zoomable(null, path, { file })));
  };
  by('kind-examples').replaceWith(dropZone({ text: 'Drop one to five examples',
    label: 'Examples of the new type', take: take((files) => choose([...examples, ...files])) }));
  by('kind').addEventListener('submit', (event) => {
    event.preventDefault();
    if (!examples.length) {
      say('Choose an example of that type of defect first.', true);
      return;
    }
    toType(by('kind-name').value, examples, () => {
      by('kind').reset();
      choose([]);
    });
  });
  return { show, redraw: judged.redraw };
}
