// Pieces of the page that know nothing of the model.

// An element; children that are texts stay texts: nothing is ever read as HTML.
export function make(tag, settings = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(settings)) {
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else if (key === 'class') element.className = value;
    else element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

// A user's text, which may be read from right to left.
export const name = (text) => make('bdi', {}, text);
export const plural = (n, what) => `${n} ${what}${n === 1 ? '' : 's'}`;

// What the server answers, as JSON; an Error with words for people.
export async function ask(address, fields) {
  const form = new FormData();
  for (const [key, value] of fields || []) form.append(key, value);
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

// Files in groups of at most so many images and bytes.
export function groups(files, most, mostBytes) {
  const found = [];
  let bytes = Infinity;
  for (const file of files) {
    const group = found.at(-1);
    bytes += file.size;
    if (!group || group.length >= most || bytes > mostBytes) {
      found.push([file]);
      bytes = file.size;
    } else group.push(file);
  }
  return found;
}

// A label with a file input: files dropped on it or chosen are taken, folders are refused.
export function dropZone(zone, take, refuse) {
  const input = zone.querySelector('input');
  const use = (list) => {
    const files = [...list].filter((file) => file.size);
    if (files.length) take(files);
  };
  input.addEventListener('change', () => { use(input.files); input.value = ''; });
  zone.addEventListener('dragover', (event) => {
    event.preventDefault();
    zone.classList.add('over');
  });
  zone.addEventListener('dragleave', () => zone.classList.remove('over'));
  zone.addEventListener('drop', (event) => {
    event.preventDefault();
    zone.classList.remove('over');
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.());
    if (entries.some((entry) => entry?.isDirectory)) {
      refuse('A folder cannot be dropped: open it and drop the images in it.');
    } else use(event.dataTransfer.files);
  });
  return zone;
}
