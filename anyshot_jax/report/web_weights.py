"""The part of the page about weights of web images: how they lie, whom they favour, and why."""

from collections.abc import Mapping

import jax
import numpy as np
from markupsafe import Markup

from anyshot_jax.episodes.episodic import embed_dataset
from anyshot_jax.ops.distance import cosine
from anyshot_jax.report import charts, figures, tasks
from anyshot_jax.report.page import (
    framed,
    html,
    join,
    name,
    note,
    paragraph,
    percent,
    section,
    table,
    way,
)
from anyshot_jax.report.subject import Subject
from anyshot_jax.types import Array, Data, Dataset, Method, TrainState

CLASSES, EACH = 8, 6  # shown, and best and worst images of each
BINS, MOST = 20, 120  # of the histogram; items of the matrix of a class


def parts(subject: Subject) -> list[Markup]:
    """Tasks, where the data have them, and what the weights say of the web images."""
    s = subject
    if 'test' not in s.data.roles:
        return tasks.parts(s)
    return tasks.parts(s) + sections(s.method, s.state, s.data, s.web)


def sections(
    method: Method, state: TrainState, data: Data, shown: Array | None = None
) -> list[Markup]:
    """The sections about what `method` exports of the role web.

    Args:
      shown: [N, H, W, C], what to draw of the web items, where these are features.
    """
    data = jax.device_put(data, jax.local_devices()[0])
    made = method.export(state, data, jax.random.key(0))
    weight, within = np.asarray(made['weight']), np.asarray(made['similarity'])
    score = np.asarray(made['score'])  # tells apart what `bound` made alike
    web = data.roles['web']
    imaged = np.asarray(web.x if shown is None else shown)
    if not (np.isfinite(weight).all() and np.isfinite(within).all()):
        return [section('weights', 'Weights', note('The weights are not finite.'))]
    return [
        *([_chosen(made)] if 'tried' in made else []),
        _histogram(web, weight),
        _ends(web, weight, score, imaged),
        _matrices(web, weight, score, within),
    ]


def _chosen(made: Mapping[str, Array]) -> Markup:
    """Table of the evidence that was chosen and the rest, and of seemingly wrong labels."""
    taken = np.asarray(made['taken'])
    same = lambda row: (row[:2] == taken[:2]).all()
    rows = [
        (
            f'{mix:.0%}',
            f'{t:g}',
            f'{loss:.3f}',
            percent(auroc),
            'taken' if same(np.array([mix, t])) else '',
        )
        for mix, t, loss, auroc in np.asarray(made['tried']).tolist()
    ]
    told = (
        f'{np.asarray(made["why"]).tobytes().decode()}. '
        f'{float(made["wrong"]):.0%} of the web labels seem to be wrong'
        + (', too few to take anything away: all images count alike.' * bool(made['even']) or '.')
    )
    head = ('SimNet', 'temperature', 'loss', 'AUROC', '')
    intro = 'Mean over wrong labels that were planted among base classes, whose truth is known.'
    listed = [paragraph(intro), table(head, rows)] if rows else []
    return section('chosen', 'How wrong labels are told', paragraph(told), *listed)


def _histogram(web: Dataset, weight: np.ndarray) -> Markup:
    """Counts of images by weight, right and wrong ones apart where that is known."""
    if web.clean is None:
        kinds = [('web images', np.ones(len(weight), bool), 1)]
        told = 'Which labels are right is not known here.'
    else:
        clean = np.asarray(web.clean)
        kinds = [('right label', clean, 3), ('wrong label', ~clean, 2)]
        told = (
            f'{(~clean).sum():,} of {len(clean):,} labels are wrong, which training never sees; '
            f'their mean weight is {_mean(weight[~clean])}, that of the others '
            f'{_mean(weight[clean])}.'
        )
    top = float(weight.max()) or 1.0
    edges = np.linspace(0, top, BINS + 1)
    counts = [np.histogram(weight[chosen], edges)[0] for _, chosen, _ in kinds]
    colours = [colour for *_, colour in kinds]
    label = f'Histogram of the weights of {len(weight):,} web images. {told}'
    axis = 'weight, mean 1 in every class'
    svg = charts.bars(counts, colours, top=top, label=label, axis=axis)
    names = [charts.Series(n, (), (), colour, joined=False) for n, _, colour in kinds]
    figure = html(
        '<figure style="max-width:36rem">{{ svg }}{{ key }}</figure>',
        svg=svg, key=charts.key(names),
    )  # fmt: skip
    return section('weights', 'Weights of the web images', paragraph(told), figure)


def _mean(values: np.ndarray) -> str:
    return f'{values.mean():.2f}' if len(values) else 'not defined'


def _ends(web: Dataset, weight: np.ndarray, score: np.ndarray, imaged: np.ndarray) -> Markup:
    """The images of the highest and the lowest weight of some classes."""
    rows = []
    for c in range(min(CLASSES, len(web.count))):
        own = np.asarray(web.offset)[c] + np.arange(np.asarray(web.count)[c])
        order = own[np.lexsort((-score[own], -weight[own]))]
        half = -(-len(order) // 2)
        best, worst = order[: min(EACH, half)], order[half:][-EACH:]
        strips = [
            (title, join(_image(web, weight, imaged, i) for i in chosen))
            for title, chosen in (('highest', best), ('lowest', worst))
            if len(chosen)
        ]
        rows.append(way(name(web.names[c]), f'{len(own)} images', strips))
    more = f' The first {CLASSES} of {len(web.count)} classes.' if len(web.count) > CLASSES else ''
    known = (
        ''
        if web.clean is None
        else ' A dashed red frame and ✗ mark a label that is wrong, which only this page knows.'
    )
    intro = f'Web images by their weight, which stands below each.{known}{more}'
    return section('best-worst', 'Best and worst images', paragraph(intro), *rows)


def _image(web: Dataset, weight: np.ndarray, imaged: np.ndarray, i: int) -> Markup:
    right = web.clean is None or bool(np.asarray(web.clean)[i])
    said = f'weight {weight[i]:.2f}' + ('' if right else ', label wrong')
    sign = '' if right else '✗ '
    return framed(figures.item(imaged[i], said), right, said, f'{sign}{weight[i]:.2f}')


def _matrices(web: Dataset, weight: np.ndarray, score: np.ndarray, within: np.ndarray) -> Markup:
    """Similarities within the class that is most divided: of the items as they are, and learnt."""
    label, count = np.asarray(web.label), np.asarray(web.count)
    spread = [weight[label == c].std() for c in range(len(count))]
    c = int(np.argmax(spread))
    own = np.asarray(web.offset)[c] + np.arange(count[c])
    place = np.lexsort((-score[own], -weight[own]))[:MOST]
    flat = embed_dataset(lambda x: x.reshape(len(x), -1).astype(np.float32), web).x
    before = np.asarray(cosine(flat[own[place]], flat[own[place]]))
    after = within[own][:, : len(own)][place][:, place]
    drawn = [
        _matrix(title, m)
        for title, m in (
            ('Cosine of the items as they come', before),
            ('The similarity behind the weights', after),
        )
    ]
    many = f', the {MOST} of the highest weight' if count[c] > MOST else ''
    known = (
        ''
        if web.clean is None
        else f' {int(np.asarray(web.clean)[own].sum())} of its {len(own)} labels are right.'
    )
    intro = (
        f'All pairs of images of {web.names[c]}, whose weights differ most{many}; from the '
        f'highest weight (top left) to the lowest. Dark is like.{known}'
    )
    return section(
        'similarities',
        'Similarities within a class',
        paragraph(intro),
        charts.side_by_side(drawn),
    )


def _matrix(title: str, sim: np.ndarray) -> Markup:
    """A matrix as an image, from its lowest (white) to its highest entry."""
    low, high = float(sim.min()), float(sim.max())
    shade = (sim - low) / ((high - low) or 1)
    ends = np.array([[255, 255, 255], [18, 52, 120]])
    image = (ends[0] + shade[..., None] * (ends[1] - ends[0])).astype(np.uint8)
    times = max(1, 360 // len(sim))  # enlarged here: a thumbnail would blur it
    image = image.repeat(times, 0).repeat(times, 1)
    caption = f'{title}, {low:.2f} to {high:.2f}'
    img = html(
        '<img src="{{ source }}" alt="{{ caption }}" '
        'style="width:100%;max-width:24rem;border:1px solid var(--rule)">',
        source=figures.png(image, most=480), caption=caption,
    )  # fmt: skip
    return charts.figure(caption, img)
