// Answers of the classifier, as they are shown and written.

import { make, name, percent, plural } from '/parts.js';
import { harmless } from '/csv.js';
import { zoomable } from '/images.js';

const SURE = 0.9;  // from which an answer isn't among the least sure
export const HEAD = ['path', 'prediction', 'probability', 'unknown', 'second', 'second_probability',
  'nearest', 'similarity', 'label', 'error'];

// What is shown of an answer. mend: what a person can do about it.
export function drawn(state, q, mend) {
  const { answer } = q;
  const figure = (image, caption) => make('figure', {}, image, make('figcaption', {}, ...caption));
  const heat = answer.heat ? figure(
    zoomable(answer.heat, `heat map of ${q.path}`),
    ['what speaks for ', name(answer.label), `, in ${answer.grid.join(' × ')} coarse places`]) : null;
  if (heat) heat.className = 'heat';
  const bars = answer.shares.flatMap(([label, share]) => {
    const bar = make('i');
    bar.style.width = `${share * 100}%`;
    return [make('span', { class: 'who' }, name(label)),
      make('span', { class: 'meter', 'aria-hidden': 'true' }, bar),
      make('span', { class: 'part' }, percent(share, 1))];
  });
  const near = answer.nearest.map((n) => make('li', {},
    zoomable(`/thumbnails/${n.image}`, `${n.name}, example of ${n.label}`),
    make('span', {}, name(n.label), make('br'),
      make('span', { class: 'dim' }, name(n.name), ` · ${n.similarity.toFixed(2)}`))));
  const right = q.label !== null && state.classes.some((c) => c.name === q.label)
    ? `in folder ${q.label}: ${q.label === answer.label ? 'right' : 'wrong'}` : null;
  return [
    make('div', { class: 'seen' },
      figure(zoomable(answer.image, q.path, { file: q.file }), [name(q.path)]), heat),
    make('div', {},
      make('h3', {}, name(answer.unknown ? 'unknown' : answer.label)),
      answer.unknown ? make('p', { class: 'small' },
        'Less like any class than nearly all examples are. Of the known classes:') : null,
      answer.copy ? make('p', { class: 'small' }, 'The same image is among the examples.') : null,
      right ? make('p', { class: 'small' }, name(right)) : null,
      make('div', { class: 'shares' }, ...bars),
      near.length ? make('p', { class: 'small' }, 'Most similar examples (cosine, at most 1)') : null,
      near.length ? make('ul', { class: 'near' }, ...near) : null,
      mend),
  ];
}

// The answers, the first to look at first.
export function grouped(answered) {
  const share = (q) => q.answer.shares[0][1];
  const least = (some) => some.sort((a, b) => share(a) - share(b));
  const known = answered.filter((q) => !q.answer.unknown);
  const of = Map.groupBy(known.filter((q) => share(q) >= SURE), (q) => q.answer.label);
  return [
    { key: ' unknown', title: 'Of no known class', open: true,
      text: 'Less like any class than nearly all examples are.',
      items: answered.filter((q) => q.answer.unknown) },
    { key: ' unsure', title: 'Least sure', open: true,
      text: `Less than ${percent(SURE)} for the best class: look at these first.`,
      items: least(known.filter((q) => share(q) < SURE)) },
    ...[...of].sort().map(([label, items]) => ({
      key: label, title: name(label), text: `${percent(SURE)} sure or more, the least sure first.`,
      items: least(items), open: false,
    })),
  ];
}

// All of them in a sentence.
export function summary(state, answered, wrong) {
  const of = Map.groupBy(answered, (q) => (q.answer.unknown ? 'of no known class' : q.answer.label));
  const counts = [...of].sort((a, b) => b[1].length - a[1].length).slice(0, 6)
    .flatMap(([label, some], i) => [i ? ', ' : ': ', `${some.length} `, name(label)]);
  const unsure = answered.filter((q) => !q.answer.unknown && q.answer.shares[0][1] < SURE).length;
  const told = answered.filter((q) => q.label !== null
    && state.classes.some((c) => c.name === q.label));
  const right = told.filter((q) => q.label === q.answer.label && !q.answer.unknown).length;
  return [plural(answered.length + wrong.length, 'image'), ...counts, of.size > 6 ? ', …' : '', '.',
    unsure ? ` ${unsure} less than ${percent(SURE)} sure.` : '',
    told.length ? ` ${right} of ${told.length} in folders of a class are right.` : '',
    wrong.length ? ` ${wrong.length} could not be read.` : ''];
}

// A line of the table, as predict writes it.
export function row(q) {
  const path = harmless(q.path, './');
  const label = harmless(q.label || '');
  const { answer } = q;
  if (answer.error) return [path, ...Array(7).fill(''), label, harmless(answer.error)];
  const [[best, share], second] = answer.shares;
  const [near] = answer.nearest;
  return [path, harmless(best), share, answer.unknown ? 'yes' : 'no',
    second ? harmless(second[0]) : '', second ? second[1] : '',
    near ? harmless(near.name, './') : '', near ? near.similarity : '', label, ''];
}
