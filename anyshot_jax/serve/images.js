// Images on the page: small ones of files that are not sent yet, and any of them enlarged.

import { by, make, name } from '/parts.js';

// A button with an image in it that enlarges it; of a file of the user's own its full size.
export function zoomable(source, alt, { file = null, className = '' } = {}) {
  const image = make('img', { alt, class: className });
  const button = make('button', { class: 'zoom', type: 'button', 'aria-label': `Enlarge ${alt}` },
    image);
  image.addEventListener('error', () => {  // of a kind that the browser doesn't draw
    button.replaceChildren(make('span', { class: 'blank' }, 'no preview'));
    button.disabled = true;
  });
  if (source) image.src = source;
  else {
    const url = URL.createObjectURL(file);
    image.addEventListener('load', () => URL.revokeObjectURL(url));
    image.src = url;
  }
  button.addEventListener('click', () => enlarge(source, alt, file));
  return button;
}

function enlarge(source, alt, file) {
  const image = make('img', { alt });
  const url = file && URL.createObjectURL(file);
  image.addEventListener('error', () => { if (source && image.src !== source) image.src = source; });
  image.src = url || source;
  const dialog = by('large');
  by('shown').replaceChildren(image, make('figcaption', {}, name(alt)));
  dialog.showModal();  // Esc closes it, and the button has the focus again
  dialog.addEventListener('close', () => {
    if (url) URL.revokeObjectURL(url);
    by('shown').replaceChildren();
  }, { once: true });
}

export function closing() {
  const dialog = by('large');
  by('close').addEventListener('click', () => dialog.close());
  dialog.addEventListener('click', (event) => { if (event.target === dialog) dialog.close(); });
}
