"""The part of the page about weak-shot runs: what weights say of the web images, and rungs."""

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from anyshot_jax.episodes.episodic import embed_dataset
from anyshot_jax.ops.distance import cosine
from anyshot_jax.report import figures
from anyshot_jax.report.page import escape, meter, name, note, percent, section, table
from anyshot_jax.storage import files
from anyshot_jax.types import Array, Data, Dataset, Method, TrainState

CLASSES, EACH = 8, 6  # shown, and best and worst images of each
BINS, MOST = 20, 120  # of the histogram; items of the matrix of a class
WIDE, HIGH, LEFT, BELOW, TOP = 460, 250, 46, 40, 12


def parts(
    method: Method,
    state: TrainState,
    data: Data,
    config: ConfigDict,
    workdir: Path,
    shown: Array | None = None,
) -> list[str]:
    """The sections for runs of `weigh` and `weakshot`; none for others.

    Args:
      shown: [N, H, W, C], what to draw of the web items, where these are features.
    """
    fields = config.method
    if fields.get('name') == 'weigh':
        data = jax.device_put(dict(data), jax.local_devices()[0])
        made = method.export(state, data, jax.random.key(0))
        weight, within = np.asarray(made['weight']), np.asarray(made['similarity'])
        score = np.asarray(made['score'])  # tells apart what `bound` made alike
        web = data['web']
        imaged = np.asarray(web.x if shown is None else shown)
        if not (np.isfinite(weight).all() and np.isfinite(within).all()):
            return [section('weights', 'Weights', note('The weights are not finite.'))]
        return [
            _histogram(web, weight),
            _ends(web, weight, score, imaged),
            _matrices(web, weight, score, within),
        ]
    if fields.get('name') == 'weakshot':
        return [_rungs(workdir)]
    return []


def _histogram(web: Dataset, weight: np.ndarray) -> str:
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
    most = max(int(c.max()) for c in counts) or 1
    step = (WIDE - LEFT - 12) / BINS
    wide, bars = step / len(kinds) - 1, []
    tall = lambda n: n / most * (HIGH - BELOW - TOP)
    for k, (count, (_, _, colour)) in enumerate(zip(counts, kinds, strict=True)):
        for i, n in enumerate(count):
            if n:
                bars.append(
                    f'<rect class="bar k{colour}" x="{LEFT + i * step + k * (wide + 1):.1f}" '
                    f'y="{HIGH - BELOW - tall(n):.1f}" width="{wide:.1f}" height="{tall(n):.1f}" '
                    'style="fill:var(--k)"/>'
                )
    ticks = [
        f'<text x="{LEFT + f * (WIDE - LEFT - 12):.1f}" y="{HIGH - BELOW + 19}" '
        f'text-anchor="middle">{f * top:.2g}</text>'
        for f in (0, 0.25, 0.5, 0.75, 1)
    ]
    ticks += [
        f'<path class="grid" d="M{LEFT} {HIGH - BELOW - tall(n):.1f}H{WIDE - 12}"/>'
        f'<text x="{LEFT - 7}" y="{HIGH - BELOW - tall(n) + 4:.1f}" text-anchor="end">{n}</text>'
        for n in (0, most)
    ]
    label = f'Histogram of the weights of {len(weight):,} web images. {told}'
    svg = (
        f'<svg class="chart" viewBox="0 0 {WIDE} {HIGH}" role="img" aria-label="{escape(label)}">'
        f'{"".join(ticks + bars)}<text x="{WIDE - 12}" y="{HIGH - 3}" text-anchor="end">weight, '
        'mean 1 in every class</text></svg>'
    )
    names = [figures.Series(n, (), (), colour, joined=False) for n, _, colour in kinds]
    figure = f'<figure style="max-width:36rem">{svg}{figures.key(names)}</figure>'
    return section('weights', 'Weights of the web images', f'<p>{escape(told)}</p>', figure)


def _mean(values: np.ndarray) -> str:
    return f'{values.mean():.2f}' if len(values) else 'not defined'


def _ends(web: Dataset, weight: np.ndarray, score: np.ndarray, imaged: np.ndarray) -> str:
    """The images of the highest and the lowest weight of some classes."""
    rows = []
    for c in range(min(CLASSES, len(web.count))):
        own = np.asarray(web.offset)[c] + np.arange(np.asarray(web.count)[c])
        order = own[np.lexsort((-score[own], -weight[own]))]
        half = -(-len(order) // 2)
        best, worst = order[: min(EACH, half)], order[half:][-EACH:]
        strips = ''.join(
            f'<div class="strip{" support" * (not k)}"><span class="label">{title}</span>'
            f'{"".join(_image(web, weight, imaged, i) for i in chosen)}</div>'
            for k, (title, chosen) in enumerate((('highest', best), ('lowest', worst)))
            if len(chosen)
        )
        rows.append(
            f'<div class="way"><div><h3>{name(web.names[c])}</h3><p>{len(own)} images</p></div>'
            f'{strips}</div>'
        )
    more = f' The first {CLASSES} of {len(web.count)} classes.' if len(web.count) > CLASSES else ''
    known = (
        ''
        if web.clean is None
        else ' A dashed red frame and ✗ mark a label that is wrong, which only this page knows.'
    )
    intro = f'Web images by their weight, which stands below each.{known}{more}'
    return section('best-worst', 'Best and worst images', f'<p>{escape(intro)}</p>', *rows)


def _image(web: Dataset, weight: np.ndarray, imaged: np.ndarray, i: int) -> str:
    right = web.clean is None or bool(np.asarray(web.clean)[i])
    style, sign = ('query', '') if right else ('query wrong', '✗ ')
    said = f'weight {weight[i]:.2f}' + ('' if right else ', label wrong')
    return (
        f'<figure class="{style}" title="{said}">{figures.item(imaged[i], said)}'
        f'<figcaption>{sign}{weight[i]:.2f}</figcaption></figure>'
    )


def _matrices(web: Dataset, weight: np.ndarray, score: np.ndarray, within: np.ndarray) -> str:
    """Similarities within the class that is most divided: of the items as they are, and learnt."""
    label, count = np.asarray(web.label), np.asarray(web.count)
    spread = [weight[label == c].std() for c in range(len(count))]
    c = int(np.argmax(spread))
    own = np.asarray(web.offset)[c] + np.arange(count[c])
    place = np.lexsort((-score[own], -weight[own]))[:MOST]
    flat = embed_dataset(lambda x: x.reshape(len(x), -1).astype(np.float32), web).x
    before = np.asarray(cosine(flat[own[place]], flat[own[place]]))
    after = within[own][:, : len(own)][place][:, place]
    figures = [
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
        f'<p>{escape(intro)}</p>',
        f'<div class="charts">{"".join(figures)}</div>',
    )


def _matrix(title: str, sim: np.ndarray) -> str:
    """A matrix as an image, from its lowest (white) to its highest entry."""
    low, high = float(sim.min()), float(sim.max())
    shade = (sim - low) / ((high - low) or 1)
    ends = np.array([[255, 255, 255], [18, 52, 120]])
    image = (ends[0] + shade[..., None] * (ends[1] - ends[0])).astype(np.uint8)
    times = max(1, 360 // len(sim))  # enlarged here: a thumbnail would blur it
    image = image.repeat(times, 0).repeat(times, 1)
    caption = f'{title}, {low:.2f} to {high:.2f}'
    img = (
        f'<img src="{figures.png(image, most=480)}" alt="{escape(caption)}" '
        'style="width:100%;max-width:24rem;border:1px solid var(--rule)">'
    )
    return f'<figure><figcaption>{escape(caption)}</figcaption>{img}</figure>'


def _rungs(workdir: Path) -> str:
    """Every classifier of this recipe's stages that is finished, this one among them."""
    rows = []
    for folder in sorted(workdir.resolve().parent.iterdir(), key=_age):
        run, config = _read(folder / 'result.json'), _read(folder / 'config.json')
        fields = config.get('method', {})
        if not run or fields.get('name') != 'weakshot':
            continue
        values: dict[str, dict] = run.get('values', {})
        first = next(iter(values.values()), {}).get('mean')
        graph = 'no' if not fields['alpha'] else f'{fields["alpha"]:g}'
        here = ' (this page)' if folder.name == workdir.resolve().name else ''
        rows.append(
            (
                f'{name(folder.name)}{here}',
                escape(fields['weights_from'] or 'none'),
                graph,
                percent(first),
                meter(first, None),
            )
        )
    if not rows:
        return section('rungs', 'Ablation', note('No stage of this recipe is finished yet.'))
    intro = (
        'The classifiers among the stages of this run: which stage weighed the web images '
        '(truth: an oracle), how much the graph counts, and what share of the clean test images '
        'of novel classes is named rightly.'
    )
    head = ('stage', 'weights', 'graph', 'accuracy', '0 to 100 %')
    return section('rungs', 'Ablation', f'<p>{escape(intro)}</p>', table(head, rows))


def _read(path: Path) -> dict:
    """The file's fields; none if it isn't there or damaged."""
    try:
        return files.read_json(path) or {}
    except (OSError, ValueError):
        return {}


def _age(folder: Path) -> tuple[Sequence[int], str]:
    """The order in which stages were finished, then their names."""
    result = folder / 'result.json'
    return ([result.stat().st_mtime_ns] if result.exists() else [], folder.name)
