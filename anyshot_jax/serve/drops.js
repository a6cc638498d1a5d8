// What people drop: files, many files, whole folders.

import { make } from '/parts.js';
import { note, say } from '/work.js';

export const ROLES = {  // what folders are called
  train: ['train', 'training', 'support'],
  val: ['val', 'valid', 'validation', 'dev'],
  test: ['test', 'testing', 'query', 'queries'],
  normal: ['good', 'normal', 'ok'],
  types: ['types'],
};
const role = (folder) => Object.keys(ROLES).find((r) => ROLES[r].includes(folder.toLowerCase()));

// An area that files and folders are dropped on, or chosen by a click.
// take([{file, path}], whether folders are among them); path begins with the dropped folder.
// folders: only they make sense here.
export function dropZone({ text, label, wide = false, folders = false, take }) {
  const files = make('input', { type: 'file', accept: 'image/*', multiple: '', 'aria-label': label });
  const folder = make('input', { type: 'file', webkitdirectory: '', 'aria-label': `${label}: a folder` });
  folder.hidden = !folders;
  const choose = { class: 'plain', type: 'button', onclick: () => folder.click() };
  const zone = make('div', { class: wide ? 'drop wide' : 'drop' }, folders ? null : files, folder,
    make('span', {}, make('b', {}, text), folders ? ' or choose it' : ' or choose files',
      ...(folders ? [] : [make('br'), make('button', choose, 'or a whole folder')])));
  files.addEventListener('change', () => {
    const list = [...files.files].map((file) => ({ file, path: file.name }));
    files.value = '';
    if (list.length) take(list, false);
  });
  folder.addEventListener('change', () => {
    const list = [...folder.files].map((file) => ({ file, path: file.webkitRelativePath }));
    folder.value = '';
    if (list.length) take(list, true);
  });
  zone.addEventListener('dragover', (event) => {
    event.preventDefault();
    zone.classList.add('over');
  });
  zone.addEventListener('dragleave', () => zone.classList.remove('over'));
  zone.addEventListener('drop', async (event) => {
    event.preventDefault();
    zone.classList.remove('over');
    // Entries are there only until this function first waits.
    const items = [...event.dataTransfer.items].filter((item) => item.kind === 'file');
    const entries = items.map((item) => [item.webkitGetAsEntry?.(), item.getAsFile()]);
    const found = [];
    for (const [entry, file] of entries) {
      if (entry?.isDirectory) found.push(...await walk(entry, entry.name));
      else if (file) found.push({ file, path: file.name });
    }
    if (found.length) take(found, entries.some(([entry]) => entry?.isDirectory));
  });
  return zone;
}

async function walk(folder, path) {
  const reader = folder.createReader();
  const found = [];
  for (;;) {  // a browser gives some entries at a time
    const some = await new Promise((done, failed) => { reader.readEntries(done, failed); });
    if (!some.length) return found;
    for (const entry of some) {
      const inside = `${path}/${entry.name}`;
      if (entry.isDirectory) found.push(...await walk(entry, inside));
      else {
        const file = await new Promise((done, failed) => { entry.file(done, failed); });
        found.push({ file, path: inside });
      }
    }
  }
}

// What an area does with files: images are used once the model has told its state.
export const taking = (state, ready, use) => (files, folders) => {
  if (!state.limits) say('The model is still loading; the files are taken as soon as it is there.');
  ready.then((there) => {
    if (!there) return;
    say('');
    const found = sifted(files, folders, state);
    if (found.length) use(found);
    else say('There is no image in that: what was passed over is listed at the end.', true);
  });
};

// The images among files, sorted by path; the rest is counted and named.
// A file that was chosen by itself is taken whatever it is called: the server says what it is.
function sifted(files, folders, { reads, limits }) {
  const kept = [];
  const order = (a, b) => (a.path < b.path ? -1 : Number(a.path > b.path));
  for (const one of folders ? [...files].sort(order) : files) {
    const parts = one.path.split('/');
    const called = parts.at(-1);
    const suffix = /[^.]\.([^.]{1,10})$/.exec(called)?.[1].toLowerCase();
    const hidden = (part) => part.startsWith('.') || reads.system.includes(part.toLowerCase());
    if (folders && parts.some(hidden)) note('hidden, system or special files', one.path);
    else if (folders && !reads.suffixes.includes(`.${suffix}`)) {
      note(`${suffix ? `.${suffix}` : 'other'} files not read`, one.path);
    } else if (!one.file.size) note('empty files', one.path);
    else if (one.file.size > limits.bytes * 0.95) {  // a request has more in it than the files
      note('files of too many bytes: shrink them', one.path);
    } else kept.push(one);
  }
  return kept;
}

// Images in folders, as they are meant: each folder a class, but `test` or `query`, whose images
// are asked about; `train` and `val` as they come with data sets.
// {classes: Map name -> files, queries: files, each with the folder it lay in as its label}
export function tree(files) {
  const rows = unwrapped(files);
  const found = { classes: new Map(), queries: [] };
  const trained = rows.some(({ parts }) => role(parts[0]) === 'train' && parts.length > 2);
  const put = (called, file) => {
    const label = called.normalize('NFC');
    found.classes.set(label, [...(found.classes.get(label) || []), file]);
  };
  for (const { file, path, parts } of rows) {
    const of = parts.length > 1 ? role(parts[0]) : null;
    if (of === 'test') {
      const label = parts.length > 2 ? parts[1].normalize('NFC') : null;
      found.queries.push({ file, path, label });
    } else if (of === 'train' && trained) {
      if (parts.length > 2) put(parts[1], { file, path });
      else note('images beside the class folders', path);
    } else if (of === 'val' && trained) note('images of a val folder, which nothing here uses', path);
    else if (parts.length > 1) put(parts[0], { file, path });
    else note('images beside the class folders', path);
  }
  return found;
}

// The same for a detector: {normal, queries: files, types: Map name -> files}; null where no
// folder says which images are normal.
export function goods(files) {
  const rows = unwrapped(files).map((row) => (
    role(row.parts[0]) === 'train' ? { ...row, parts: row.parts.slice(1) } : row));
  if (!rows.some(({ parts }) => parts.length > 1 && role(parts[0]) === 'normal')) return null;
  const found = { normal: [], queries: [], types: new Map() };
  for (const { file, path, parts } of rows) {
    const of = parts.length > 1 ? role(parts[0]) : null;
    if (of === 'normal') found.normal.push({ file, path });
    else if (of === 'test') found.queries.push({ file, path, label: parts.length > 2 ? parts[1] : null });
    else if (of === 'types' && parts.length > 2) {
      found.types.set(parts[1], [...(found.types.get(parts[1]) || []), { file, path }]);
    } else note('images in folders that are not good, test or types', path);
  }
  return found;
}

// Paths by their parts, without the folders around everything.
function unwrapped(files) {
  let rows = files.map(({ file, path }) => ({ file, path, parts: path.split('/') }));
  const same = () => rows.length && rows.every(({ parts }) => parts.length > 1
    && parts[0] === rows[0].parts[0]) && rows.some(({ parts }) => parts.length > 2);
  while (same() && !role(rows[0].parts[0])) {
    rows = rows.map((row) => ({ ...row, parts: row.parts.slice(1) }));
  }
  return rows;
}
