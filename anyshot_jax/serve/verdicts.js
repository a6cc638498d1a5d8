// Verdicts of the detector, as they are shown and written.

import { make, name, percent, plural } from '/parts.js';
import { harmless } from '/csv.js';
import { ROLES } from '/drops.js';
import { zoomable } from '/images.js';

const CLOSE = Math.log(1.1);  // a score within 10 % of the threshold is among the least sure
export const HEAD = ['path', 'score', 'threshold', 'verdict', 'p_value', 'product', 'type',
  'type_probability', 'left', 'top', 'right', 'bottom', 'label', 'error'];

// What is shown of a verdict. mend: what a person can do about it.
export function drawn(state, q, mend) {
  const { answer } = q;
  const figure = (image, caption) => make('figure', {}, image, make('figcaption', {}, ...caption));
  const limit = answer.threshold;
  const many = answer.p_value === null ? '' : `${percent(answer.p_value, 1)} of normal images score as high.`;
  const bar = make('i');
  if (limit) bar.style.width = `${Math.min(answer.score / (2 * limit), 1) * 100}%`;
  const at = make('u');
  at.style.left = '50%';
  return [
    make('div', { class: 'seen' },
      figure(zoomable(answer.image, q.path, { file: q.file }), [name(q.path)]),
      figure(zoomable(answer.heat, `how unlike normal images ${q.path} is`),
        [limit ? 'how unlike normal; outlined: above the threshold' : 'how unlike normal'])),
    make('div', {},
      make('h3', { class: answer.verdict }, answer.verdict || 'no threshold yet'),
      make('p', { class: 'small' }, limit
        ? `Score ${answer.score.toFixed(3)}, a defect above ${limit.toFixed(3)}. ${many}`
        : `Score ${answer.score.toFixed(3)}. Two or more normal images give a threshold.`),
      limit ? make('span', { class: 'meter', 'aria-hidden': 'true' }, bar, at) : null,
      answer.product === null
        ? make('p', { class: 'note' }, 'As a whole unlike the normal images: another product?') : null,
      answer.product ? make('p', { class: 'small' }, 'Product ', name(answer.product)) : null,
      answer.type ? make('p', { class: 'small' }, answer.known_type
        ? `${answer.type}, ${percent(answer.type_probability)} among the known types`
        : 'Like none of the known types.') : null,
      mend),
  ];
}

// The verdicts, the first to look at first.
export function grouped(answered) {
  const near = (q) => (q.answer.sure === null ? -q.answer.score : q.answer.sure);
  const sorted = [...answered].sort((a, b) => near(a) - near(b));
  const told = sorted.filter((q) => q.answer.verdict);
  const sure = (verdict) => told.filter((q) => q.answer.verdict === verdict && q.answer.sure > CLOSE);
  return [
    { key: ' none', title: 'Without a threshold', text: 'The highest scores first.', open: true,
      items: sorted.filter((q) => !q.answer.verdict) },
    { key: ' unsure', title: 'Least sure', open: true,
      text: 'The score is within 10 % of the threshold: look at these first.',
      items: told.filter((q) => q.answer.sure <= CLOSE) },
    { key: ' defect', title: 'Defect', open: true, text: 'Those nearest to the threshold first.',
      items: sure('defect') },
    { key: ' normal', title: 'Normal', open: false, text: 'Those nearest to the threshold first.',
      items: sure('normal') },
  ];
}

// All of them in a sentence.
export function summary(answered, wrong) {
  const of = (verdict) => answered.filter((q) => q.answer.verdict === verdict).length;
  const types = Map.groupBy(answered.filter((q) => q.answer.type), (q) => q.answer.type);
  const named = [...types].sort((a, b) => b[1].length - a[1].length).slice(0, 6)
    .flatMap(([kind, some], i) => [i ? ', ' : ' (', `${some.length} `, name(kind)]);
  const foreign = answered.filter((q) => q.answer.product === null).length;
  const open = of('');
  return [plural(answered.length + wrong.length, 'image'), ': ',
    ...(open ? [`${open} without a verdict: two or more normal images give a threshold`]
      : [`${of('defect')} with a defect`, ...named, named.length ? ')' : '', `, ${of('normal')} normal`]),
    '.', ...byFolder(answered), foreign ? ` ${foreign} may be of another product.` : '',
    wrong.length ? ` ${wrong.length} could not be read.` : ''];
}

// Where folders tell which images are normal.
function byFolder(answered) {
  const told = answered.filter((q) => q.label !== null && q.answer.verdict);
  const good = told.filter((q) => ROLES.normal.includes(q.label.toLowerCase()));
  if (!good.length) return [];
  const found = (some) => `${some.filter((q) => q.answer.verdict === 'defect').length} of ${some.length}`;
  const others = told.filter((q) => !good.includes(q));
  return [` Called a defect: ${found(good)} in folders of normal images`,
    others.length ? `, ${found(others)} in the others.` : '.'];
}

// A line of the table, as predict --good writes it.
export function row(q) {
  const path = harmless(q.path, './');
  const label = harmless(q.label || '');
  const { answer } = q;
  if (answer.error) return [path, ...Array(HEAD.length - 3).fill(''), label, harmless(answer.error)];
  const cell = (value) => (value === null ? '' : value);
  return [path, answer.score, cell(answer.threshold), answer.verdict, cell(answer.p_value),
    answer.product === null ? 'none' : harmless(answer.product), harmless(answer.type),
    answer.known_type || answer.type ? cell(answer.type_probability) : '', ...answer.place, label, ''];
}
