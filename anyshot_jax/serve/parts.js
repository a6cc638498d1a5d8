// Pieces of the page that know nothing of the models.

// An element; children that are texts stay texts: nothing is ever read as HTML.
export function make(tag, settings = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(settings)) {
    if (value === null || value === undefined) continue;
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else if (key === 'class') element.className = value;
    else element.setAttribute(key, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

export const by = (id) => document.getElementById(id);

// A user's text, which may be read from right to left.
export const name = (text) => make('bdi', {}, text);
export const plural = (n, what) => `${n.toLocaleString('en')} ${what}${n === 1 ? '' : 's'}`;
export const percent = (share, digits = 0) => `${(share * 100).toFixed(digits)} %`;

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

// Things with a file each, in groups of at most so many images and bytes.
export function groups(items, most, mostBytes) {
  const found = [];
  let bytes = Infinity;
  for (const item of items) {
    const group = found.at(-1);
    bytes += item.file.size;
    if (!group || group.length >= most || bytes > mostBytes) {
      found.push([item]);
      bytes = item.file.size;
    } else group.push(item);
  }
  return found;
}
