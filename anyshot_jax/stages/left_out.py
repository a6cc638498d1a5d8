"""Settings of zero-shot classification, chosen in the run by leaving seen classes out.

What fits one set ruins another: a weight of colours that helps where surfaces are blue or brown
names grey textures worse than chance. So a part of the seen classes is left out in turn, their
means are predicted from the words of the others, and their own images say how well that went. All
of it is closed form on class means.

Where colours start from is words alone unless all of this holds: the images have colours, the
descriptions say some, and with them the left-out classes are told apart better. From there a
setting is moved only by a gain beyond its 95 % interval over the classes: some fifteen classes say
little, and the best of thirty settings is mostly luck.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from anyshot_jax.ops.colour import COLOURS
from anyshot_jax.ops.distance import unit
from anyshot_jax.ops.metric import harmonic_mean
from anyshot_jax.ops.product import product
from anyshot_jax.ops.prototype import class_means
from anyshot_jax.types import Array, Dataset

FEW = 6  # seen classes; with fewer nothing is chosen
DRAWS = 24
TIMES = (0.5, 1.0, 2.0, 4.0)  # the start's weight of colours
PENALTY_TIMES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
CALIBRATION = tuple(i / 40 for i in range(21))
# Least part of the standardised colours that is neither black, grey nor white. Grey sets have
# none, whose hues are those of a JPEG file a hundredth, and coloured ones a third or more.
CHROMATIC = 0.1
# Of the colours' block among the words, beside the description's of length 1.
AMONG_WORDS = 0.7


class Choice(NamedTuple):
    """Settings, and what speaks for them; all []."""

    colours: Array  # weight; 0: words alone
    penalty: Array  # of the ridge
    calibration: Array  # taken from the scores of seen classes
    accuracy: Array  # of left-out classes; NaN where none were
    words_alone: Array  # the same without colours, at the start's penalty
    half: Array  # half the 95 % interval of the difference of the two, over the classes
    chromatic: Array  # part of the colours that is neither black, grey nor white
    num_classes: Array  # seen


def fixed(colours: float, penalty: float, calibration: float, num_classes: int) -> Choice:
    """The settings as they are given, chosen by nobody."""
    nan = jnp.full((), jnp.nan)
    c, p, k = (jnp.asarray(a, jnp.float32) for a in (colours, penalty, calibration))
    return Choice(c, p, k, nan, nan, nan, nan, jnp.asarray(num_classes))


def cut(x: Array, coloured: bool) -> tuple[Array, Array]:
    """The main part [..., D - 11] and the shares of colours [..., 11] (without any: D and 0)."""
    main, rest = jnp.split(x, [x.shape[-1] - (len(COLOURS) if coloured else 0)], axis=-1)
    return main, rest


def joined_words(dataset: Dataset, colours: Array) -> Array:
    """Class descriptions as vectors [C, A], with the 11 colours that they name if those count."""
    parts = [unit(dataset.extras['attribute'])]
    if 'colours' in dataset.extras:
        parts.append(jnp.where(colours > 0, AMONG_WORDS, 0) * unit(dataset.extras['colours']))
    return jnp.concatenate(parts, 1)


def mixture(seen: Array, asked: Array, penalty: Array) -> Array:
    """[U, C]: the means that ridge regression predicts, as weights of the seen classes' means.

    Args:
      seen: words [C, A], asked: [U, A], centred here on those seen and brought to length 1.
    """
    middle = seen.mean(0, keepdims=True)
    seen, asked = unit(seen - middle), unit(asked - middle)
    gram = product(seen, seen.T) + penalty * jnp.eye(len(seen))
    slopes = jnp.linalg.solve(gram, product(seen, asked.T)).T
    return slopes + (1 - slopes.sum(1, keepdims=True)) / len(seen)


def named_colours(shown: Array, seen: Array, asked: Array) -> Array:
    """[U, 11]: colours that descriptions name, with one slope for all that the seen classes give.

    Args:
      shown: [C, 11] of the seen classes' images. seen: [C, 11] of their words, asked: [U, 11].
    """
    middle = seen.mean(0, keepdims=True)
    seen = seen - middle
    slope = jnp.sum(seen * shown) / jnp.maximum(jnp.sum(seen * seen), 1e-12)
    return slope * (asked - middle)


def standardised(sim: Array, of_seen: Array, there: Array) -> Array:
    """Cosines [N, U] with each centre's level and spread over the seen images made alike.

    A predicted centre that is near to everything (a hub) would win everywhere.

    Args:
      of_seen: [M, U] cosines of the seen classes' images. there: [M] bool, which of them count.
    """
    where = there[:, None]
    level = of_seen.mean(0, keepdims=True, where=where)
    spread = jnp.maximum(of_seen.std(0, keepdims=True, where=where), 1e-6)
    return (sim - level) / spread * spread.mean()


def choose(train: Dataset, num_new: int, start: Choice, likeness: float = 1.0) -> Choice:
    """Settings for new classes, by the seen ones.

    Args:
      train: features [N, D] of the seen classes, with their words; rows of label -1 don't count.
      num_new: how many classes are to be told apart; so many are left out, if there are enough.
      start: what is moved from, as `fixed` has it.
      likeness: how much less new items are like their class's mean than these; the calibration is
        a difference of cosines, and shrinks with them.
    """
    num = len(train.count)
    coloured = 'colours' in train.extras
    if num < FEW:
        return start._replace(colours=jnp.zeros(()))
    left = draws(num, max(2, min(num_new, num // 3)))
    weights = jnp.concatenate([jnp.zeros(1), start.colours * jnp.array(TIMES)])
    weights = weights if coloured else weights[:1]
    penalties = start.penalty * jnp.array(PENALTY_TIMES)
    items = _items(train, coloured)
    every = _table(items, train.label >= 0)
    named = lambda ask: _of_settings(items, every, ask, weights, penalties)
    right = jax.lax.map(named, jnp.asarray(left))
    # [weights, penalties, C]: the mean over the draws in which a class was left out.
    member = jax.nn.one_hot(left, num)
    of_class = jnp.einsum('rwpk,rkc->wpc', right, member, precision='highest')
    out = np.bincount(left.ravel(), minlength=num)
    asked = np.flatnonzero(out)  # of many classes not all
    of_class = of_class[..., asked] / out[asked].astype(np.float32)[None, None]
    alone, first = of_class[0, PENALTY_TIMES.index(1.0)], 1 + TIMES.index(1.0)
    chromatic = jnp.mean(jnp.sum(items.rest[:, 3:] ** 2, 1), where=train.label >= 0)
    on = jnp.zeros((), bool)
    if coloured:
        gain = of_class[first, PENALTY_TIMES.index(1.0)] - alone
        on = (chromatic > CHROMATIC) & (gain.mean() > 0)
    begin = jnp.where(on, of_class[min(first, len(weights) - 1), PENALTY_TIMES.index(1.0)], alone)
    allowed = (jnp.arange(len(weights)) > 0) == on
    mean = jnp.where(allowed[:, None], of_class.mean(-1), -1)
    best = jnp.unravel_index(jnp.argmax(mean), mean.shape)
    moved = (of_class[best] - begin).mean() > _half(of_class[best] - begin)
    colours = jnp.where(moved, weights[best[0]], jnp.where(on, start.colours, 0))
    penalty = jnp.where(moved, penalties[best[1]], start.penalty)
    final = jnp.where(moved, of_class[best], begin)
    part = _table(items, (train.label >= 0) & ~items.asked)
    of = lambda ask: _of_calibrations(items, part, ask, colours, penalty)
    level = jax.lax.map(of, jnp.asarray(left)).mean(0)
    return Choice(
        colours=colours,
        penalty=penalty,
        calibration=likeness * jnp.array(CALIBRATION)[jnp.argmax(harmonic_mean(*level))],
        accuracy=final.mean(),
        words_alone=alone.mean(),
        half=_half(final - alone),
        chromatic=chromatic if coloured else jnp.zeros(()),
        num_classes=jnp.asarray(num),
    )


def said(choice: Choice) -> str:
    """A line: what was chosen, from what, and how sure that is."""
    c = {name: float(value) for name, value in choice._asdict().items()}
    num = int(c['num_classes'])
    if num < FEW:
        return (
            f'{num} seen classes are too few to choose anything by leaving some out (from {FEW} '
            f'on): words alone, penalty {c["penalty"]:g}, calibration {c["calibration"]:g}'
        )
    kind = f'weight of colours {c["colours"]:g}' if c['colours'] else 'words alone, no colours'
    gain = 100 * (c['accuracy'] - c['words_alone'])
    return (
        f'{kind}, penalty {c["penalty"]:g}, calibration {c["calibration"]:g}, by leaving some of '
        f'{num} seen classes out in turn: {100 * c["accuracy"]:.1f} % of them right, '
        f'{gain:+.1f} ± {100 * c["half"]:.1f} beside words alone; '
        f'{100 * c["chromatic"]:.0f} % of the colours are neither black, grey nor white'
    )


def draws(num: int, size: int) -> np.ndarray:
    """[DRAWS, size] of 0..num-1: every class is left out about as often; of many some never."""
    rng = np.random.default_rng(0)
    rows: list[Array] = []
    while len(rows) < DRAWS:
        order = rng.permutation(num)
        rows += [np.sort(order[i : i + size]) for i in range(0, num - size + 1, size)]
    return np.array(rows[:DRAWS])


class _Items(NamedTuple):
    raw: Array  # [N, D] the main part as it came
    rest: Array  # [N, 11], or [N, 0]
    label: Array  # [N]
    asked: Array  # [N] bool: every fifth item of a class, or the last of a few; kept back
    words: Array  # [2, C, A], without and with the colours
    named: Array  # [C, 11], or [C, 0]


class _Table(NamedTuple):
    """Class means, of which predictions are mixtures, as products and colours."""

    sim: Array  # [N, C] products of items of length 1 and the means
    gram: Array  # [C, C] of the means
    shown: Array  # [C, 11] mean colours


def _items(train: Dataset, coloured: bool) -> _Items:
    nth = jnp.arange(len(train.label)) - jnp.asarray(train.offset)[train.label]
    named = train.extras['colours'] if coloured else jnp.zeros((len(train.count), 0))
    words = jnp.stack([joined_words(train, jnp.asarray(w)) for w in (0.0, 1.0)])
    raw, rest = cut(train.x, coloured)
    count = jnp.asarray(train.count)[train.label]
    asked = (nth % 5 == 4) | ((count > 1) & (count < 5) & (nth == count - 1))
    return _Items(raw, unit(rest), train.label, asked, words, named)


def _table(items: _Items, use: Array) -> _Table:
    label, num = jnp.where(use, items.label, -1), len(items.named)
    means, shown = (class_means(a, label, num) for a in (items.raw, items.rest))
    return _Table(product(unit(items.raw), means.T), product(means, means.T), shown)


def _kept(ask: Array, num: int) -> tuple[Array, Array]:
    """[C] bool, and the places [C - k] of True."""
    kept = jnp.ones(num, bool).at[ask].set(False)
    return kept, jnp.nonzero(kept, size=num - len(ask))[0]


def _predicted(items, table: _Table, ask, on, penalty, among) -> Array:
    """[N, k] similarities of the main parts to centres of classes left out."""
    _, keep = _kept(ask, len(items.named))
    words = jnp.where(on, items.words[1], items.words[0])
    mix = mixture(words[keep], words[ask], penalty)
    length = jnp.sqrt(jnp.maximum(jnp.sum(product(mix, table.gram[keep][:, keep]) * mix, 1), 1e-12))
    sim = product(table.sim[:, keep], mix.T) / length[None]
    return standardised(sim, sim, among)


def _looked_up(items: _Items, table: _Table, ask: Array) -> Array:
    """[N, k] cosines of the colours with those that the words of classes left out name."""
    _, keep = _kept(ask, len(items.named))
    colours = named_colours(table.shown[keep], items.named[keep], items.named[ask])
    return product(items.rest, unit(colours).T)


def _of_settings(items: _Items, table, ask: Array, weights: Array, penalties: Array) -> Array:
    """[weights, penalties, k]: how much of each class left out is named rightly among them."""
    among = (items.label >= 0) & _kept(ask, len(items.named))[0][items.label]
    own = (items.label[:, None] == ask[None]).astype(jnp.float32)
    by_words = lambda on: jax.vmap(
        lambda penalty: _predicted(items, table, ask, on, penalty, among)
    )(penalties)
    without, joined, colours = by_words(False), by_words(True), _looked_up(items, table, ask)

    def share(weight):
        score = jnp.where(weight > 0, joined, without) + weight**2 * colours[None]
        named = jax.nn.one_hot(jnp.argmax(score, 2), len(ask))
        return (own[None] * named).sum(1) / jnp.maximum(own.sum(0), 1)[None]

    return jax.lax.map(share, weights)


def _of_calibrations(items: _Items, table, ask: Array, weight: Array, penalty: Array) -> Array:
    """[2, calibrations]: shares of seen and of left-out classes named rightly among all.

    The table is one of the items that are not asked.
    """
    kept, keep = _kept(ask, len(items.named))
    kept = (items.label >= 0) & kept[items.label]
    lengths = jnp.sqrt(jnp.maximum(jnp.diagonal(table.gram), 1e-12))
    seen = table.sim / lengths[None] + weight**2 * product(items.rest, unit(table.shown).T)
    seen, among = seen[:, keep], kept & ~items.asked
    new = _predicted(items, table, ask, weight > 0, penalty, among)
    new = new + weight**2 * _looked_up(items, table, ask)
    behind = (seen.max(1) - new.max(1)) / (1 + weight**2)  # of the new classes, at calibration 0
    place = jnp.array(CALIBRATION)[:, None]

    def share(score, classes, counts, asked):
        own = (items.label[:, None] == classes[None]) & asked[:, None]
        right = (classes[jnp.argmax(score, 1)] == items.label)[None] & counts  # [calibrations, N]
        total = product(right.astype(jnp.float32), own.astype(jnp.float32))
        there = own.any(0)  # a class of one item has none to be asked
        return (total / jnp.maximum(own.sum(0), 1)[None]).mean(1, where=there[None])

    seen_right = share(seen, keep, behind[None] >= place, kept & items.asked)
    return jnp.stack([seen_right, share(new, ask, behind[None] < place, items.label >= 0)])


def _half(values: Array) -> Array:
    return 1.96 * values.std(ddof=1) / np.sqrt(len(values))
