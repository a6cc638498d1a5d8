"""The part of the page about a detector: what is told from good, and where images are unlike it.

Bounded in images: at most MOST of each role are scored, NORMAL normal ones looked through for the
patch that a defect was compared with, and a few of each of TYPES types of defect drawn.
"""

from typing import NamedTuple

import jax
import numpy as np
from markupsafe import Markup

from anyshot_jax.config import find
from anyshot_jax.defects import memory_bank
from anyshot_jax.defects.detector import judged_roles
from anyshot_jax.ops.detection import enlarge
from anyshot_jax.report import charts, overlay
from anyshot_jax.report.page import html, name, note, paragraph, section
from anyshot_jax.report.search import roc
from anyshot_jax.report.subject import Subject
from anyshot_jax.types import Array, Dataset

MOST, NORMAL, TYPES, DRAWN = 500, 1000, 12, 2
BINS = 24
FAR = "how far an image's worst patch is from every patch of the remembered normal ones"
LEARNT = 'how much it looks like a synthetic defect'
SCORES = {  # what tells an image's defect, by config.method.score
    'bank': FAR,
    'net': f'of its worst patch, {LEARNT}',
    'both': f'{FAR}, and {LEARNT}, each in deviations from the mean of normal images held out',
}


class Scored(NamedTuple):
    """Images of a role with their scores."""

    dataset: Dataset
    rows: np.ndarray  # [n], of the dataset
    image: np.ndarray  # [n]
    maps: np.ndarray  # [n, h, w]


class Place(NamedTuple):
    """A patch: the image that it is in, and its cell there."""

    image: np.ndarray  # [H, W, C]
    cell: tuple[int, int]
    grid: tuple[int, int]  # rows and columns of cells


def parts(subject: Subject) -> list[Markup]:
    """The sections for a run of a detector: curves of the scores, and images with heat maps."""
    state, data, config, rng = subject.state, subject.data, subject.config, subject.rng
    patcher, score = find('methods', config.method.name).scorer(state, data, config)
    bank = np.asarray(state.extra['bank'])
    found = []
    for dataset in (data.roles[role] for role in judged_roles(data, config.eval.role)):
        rows = np.sort(rng.permutation(len(dataset.x))[:MOST])
        x = np.asarray(dataset.x)[rows]
        own = score(x)
        found.append(Scored(dataset, rows, own['image'], own['map']))
    good, *others = found
    if not all(np.isfinite(of.image).all() for of in found):
        return [section('detection', 'Good or not', note('The scores are not finite.'))]
    groups = [('good', good, choose(good.image, rng))]
    bad = others[0] if others else None
    if bad:
        label = np.asarray(bad.dataset.label)[bad.rows]
        for c in np.unique(label)[:TYPES]:
            here = np.flatnonzero(label == c)
            picks = [(int(here[i]), why) for i, why in choose(bad.image[here], rng)]
            groups.append((bad.dataset.names[c], bad, picks))
    return [
        _curves(good, bad, SCORES[config.method.get('score', 'bank')]),
        _places(groups, good, bad, patcher, bank, data.roles['good'], config, rng),
    ]


def choose(score: Array, rng: np.random.Generator) -> list[tuple[int, str]]:
    """Picks the scored images [n] to draw, and says why: the lowest, the highest, DRAWN others."""
    order = np.argsort(score, kind='stable').tolist()
    others = rng.permutation(order[1:-1])[:DRAWN]
    ends = [(order[0], 'lowest'), (order[-1], 'highest')] if len(order) > 1 else [(order[0], '')]
    return ends + [(int(i), '') for i in others]


def _curves(good: Scored, bad: Scored | None, told_by: str) -> Markup:
    title, normal = 'Good or not', f'{len(good.image):,} normal images that were not remembered'
    if bad is None:
        intro = f'{normal} by one number: {told_by}. There is no image with a defect.'
        return section('detection', title, paragraph(intro), _shares([('good', good.image, 3)]))
    scores = np.concatenate([good.image, bad.image])
    false, true = roc(scores, np.arange(len(scores)) >= len(good.image))
    area = float(np.trapezoid(true, false))
    grid = np.linspace(0, 1, 101)
    label = f'Defects found over normal images taken for defects: area {area:.4f}.'
    series = [charts.Series('ROC', grid.tolist(), np.interp(grid, false, true).tolist(), 2)]
    left = charts.lines(series, label=label, mark=None, percent=True, axis='false alarms')
    right = _shares([('good', good.image, 3), ('with a defect', bad.image, 2)])
    intro = f'{len(bad.image):,} images with a defect and {normal}, told apart by one number: '
    both = charts.side_by_side([charts.figure(f'ROC, area {area:.4f}', left), right])
    return section('detection', title, paragraph(f'{intro}{told_by}.'), both)


def _shares(scores: list[tuple[str, Array, int]]) -> Markup:
    """Shares of the images by score. scores: title, [n] and colour of each kind of images."""
    every = np.concatenate([own for _, own, _ in scores])
    low, high = min(float(every.min()), 0), float(every.max())
    edges = np.linspace(low, high + 1e-4 * abs(high) or 1.0, BINS + 1)
    middle = ((edges[1:] + edges[:-1]) / 2).tolist()
    series = [
        charts.Series(title, middle, (np.histogram(own, edges)[0] / len(own)).tolist(), colour)
        for title, own, colour in scores
    ]
    medians = [f'{np.median(own):.3g}' for _, own, _ in scores]
    label = f'Shares of the images by score; median of normal ones {", others ".join(medians)}.'
    lines = charts.lines(series, label=label, mark=None, percent=True, axis='score')
    return charts.figure('Scores', charts.key(series), lines)


def _places(groups, good: Scored, bad: Scored | None, patcher, bank, normal, config, rng) -> Markup:
    picks = [(of, i) for _, of, chosen in groups for i, _ in chosen]
    x = np.stack([np.asarray(of.dataset.x[of.rows[i]]) for of, i in picks])
    maps = np.stack([of.maps[i] for of, i in picks])
    grid = maps.shape[1:]
    cells = [divmod(int(m.argmax()), grid[1]) for m in maps]
    rows = np.sort(rng.permutation(len(normal.x))[:NORMAL])
    # The remembered patches may be on a coarser grid: the one that holds the cell's middle.
    coarse = ((np.array(cells) + 0.5) * patcher.shape[:2] / grid).astype(int)
    origin = nearest_normal(patcher, bank, x, coarse, np.asarray(normal.x)[rows])
    large = enlarge(maps, x.shape[1:3], config.method.smooth)
    # One scale for all: what 19 of 20 places of normal images stay below has no colour.
    low = float(np.quantile(good.maps, 0.95))
    high = max(float(np.quantile((bad or good).maps.max((1, 2)), 0.9)), low + 1e-6)
    shown, at = [], 0
    for title, of, chosen in groups:
        cards = []
        for i, why in chosen:
            mask = of.dataset.mask
            mask = None if mask is None else np.asarray(mask[of.rows[i]])
            place, normal_place = Place(x[at], cells[at], grid), origin[at]
            below = float((good.image < of.image[i]).mean())
            said = f'score {of.image[i]:.3g}{f", the {why}" if why else ""}'
            if of is bad:
                said += f'; higher than {below * 100:.0f} % of the normal ones'
            cards.append(_card(title, place, normal_place, large[at], mask, (low, high), said))
            at += 1
        shown.append(
            html(
                '<h3 class="sub">{{ title }}</h3><div class="finds">'
                '{% for card in cards %}{{ card }}{% endfor %}</div>',
                title=name(title),
                cards=cards,
            )
        )
    of_types = np.asarray(bad.dataset.label)[bad.rows] if bad else []
    left = len(np.unique(of_types)) - (len(groups) - 1)
    intro = (
        'Of normal images'
        + (' and of every type' if bad else '')
        + (f' (but {left} further ones)' if left > 0 else '')
        + f' the lowest and the highest score, and {DRAWN} drawn by lot. Each: the image; how '
        'unlike the normal ones its places are, from no colour (usual) over red to yellow, all on '
        "one scale, with the defect's mask outlined in green and the worst patch in white; on the "
        'right what surrounds that patch, and below it the remembered normal patch that is nearest'
        + (
            '.'
            if len(rows) == len(normal.x)
            else f' (or the one most like it among {len(rows):,} of {len(normal.x):,} normal ones).'
        )
    )
    return section('places', 'Where they are unlike normal ones', paragraph(intro), *shown)


def _card(title, place: Place, normal: Place, heat, mask, scale, said: str) -> Markup:
    size = place.image.shape[:2]
    plain = overlay.on_page(place.image)
    hot = overlay.with_heat(plain, heat, *scale)
    if mask is not None and mask.any():
        hot = overlay.with_outline(hot, mask)
    worst = np.zeros(size, bool)
    worst[overlay.box(place.cell, place.grid, size)] = True
    hot = overlay.with_outline(hot, worst, overlay.WHITE)
    own, other = (overlay.on_page(overlay.around(*p)) for p in (place, normal))
    return html(
        '<figure class="find">{{ whole }}{{ heat }}<div>{{ worst }}{{ nearest }}</div>'
        '<figcaption>{{ said }}</figcaption></figure>',
        whole=overlay.img(plain, f'{title}, {said}'),
        heat=overlay.img(hot, 'how unlike normal ones'),
        worst=overlay.img(own, 'around the worst patch'),
        nearest=overlay.img(other, 'the nearest normal patch'),
        said=said,
    )


def nearest_normal(
    patcher: memory_bank.Patcher, bank: Array, x: Array, cells: Array, good: Array
) -> list[Place]:
    """Places in normal images of the remembered patches nearest to a patch of each image.

    Args:
      bank: [K, D]. x: [N, H, W, C] uint8. cells: [N, 2], of the patches asked for.
      good: [M, H, W, C] uint8, where it is looked for, by its patch.
    Returns:
      N places. If the image that the patch was remembered of isn't among `good`, the most
      similar patch there.
    """

    def remembered(params, x, bank):
        patches = patcher.apply(params, x)
        return bank[memory_bank.nearest_patches(bank, patches)[1][..., 0]]

    every = memory_bank.over_images(patcher, remembered, x, bank, what='compare')
    wanted = every[np.arange(len(x)), cells[:, 0], cells[:, 1]]

    def seek(params, x, wanted):
        patches = patcher.apply(params, x)
        flat = patches.reshape(len(patches), -1, patches.shape[-1])
        dist, cell = jax.vmap(lambda own: memory_bank.nearest_patches(own, wanted))(flat)
        return dist[..., 0], cell[..., 0]

    dist, cell = memory_bank.over_images(patcher, seek, good, wanted, what='look through good')
    best = dist.argmin(0)
    grid = every.shape[1:3]
    return [Place(good[m], divmod(int(cell[m, n]), grid[1]), grid) for n, m in enumerate(best)]
