"""The judge of web labels, chosen by wrong labels that are planted among base classes.

Base classes are clean. Some are drawn as if they were novel, with as many items as a web class
has, and the share `SHARES` of their labels is made wrong: which similarity and which temperature
of its votes tells right from wrong, and how sure to be, is then known and not believed
(ops/label_evidence.py). A SimNet is judged on classes that it never learnt from, and taken only
where it is clearly better than the cosine of the features.
"""

from typing import NamedTuple

import jax
import numpy as np
from absl import logging

from anyshot_jax.data.noise import Planted, plant
from anyshot_jax.ops.label_evidence import (
    RightLabel,
    fit_right_label,
    log_odds,
    right_chance,
    vote_evidence,
)
from anyshot_jax.ops.weighting import auroc
from anyshot_jax.stages.similarity import Similarity, all_pairs, features_of
from anyshot_jax.types import Array, Dataset, InputError

SHARES = (0.0, 0.2, 0.4, 0.6) * 3
TEMPERATURES = (0.2, 0.4, 0.8)
MIXES = (0.0, 0.5, 1.0)  # the share of SimNet in the similarity, the rest is cosine
LEAST = 4  # base classes: two that are drawn and two that stand for nothing
LEAST_UNSEEN = 6  # of classes that a SimNet never learnt from, to judge it by
FEWEST, MOST = 4, 500  # images of a class in a planting
MOST_ITEMS = 2000  # of a planting
PAIRS, MOST_BYTES = 4, 16 << 30  # arrays of all pairs of web images, and what they may take

evidence_of = jax.jit(vote_evidence, static_argnums=2)


class Candidate(NamedTuple):
    """A similarity and a temperature, and how they did."""

    mix: float
    temperature: float
    loss: Array  # [plantings] mean -log chance of the truth about a label, over its items
    auroc: float  # mean over plantings with wrong labels
    fitted: RightLabel
    clean: float  # the largest share of wrong labels that is found where there is none


class Choice(NamedTuple):
    """The judge of web labels."""

    best: Candidate
    tried: list[Candidate]
    why: str


# Where there is nothing to choose by: about what metal, texture, grocery and emoji classes gave,
# slopes of 8 to 20 and 1 to 4 and intercepts of 1 to 2.5.
DEFAULT = Candidate(
    0.0, 0.4, np.zeros(0), float('nan'), RightLabel(np.array([10.0, 3.0]), 2.0, 0.7), 0.05
)


def choose(base: Dataset | None, web: Dataset, sim: Similarity | None, unseen: Array) -> Choice:
    """Chooses similarity, temperature and chances by plantings; `why` is a sentence about it.

    Args:
      sim: the SimNet's, or none. unseen: base classes that it never learnt from.
    """
    every = np.flatnonzero(np.asarray(base.count) >= FEWEST) if base else np.arange(0)
    if base is None or len(every) < LEAST:
        why = (
            f'wrong labels can be planted among {LEAST} base classes or more of {FEWEST} images '
            f'each, and there are {len(every)}: cosine at temperature {DEFAULT.temperature}, with '
            'chances as other sets have them'
        )
        logging.warning('weights of web images: %s', why)
        return Choice(DEFAULT, [], why)
    unseen = np.intersect1d(unseen, every)
    if sim is None:
        tried = judged(base, every, web, None, (0.0,))
        return _said(Choice(_best(tried), tried, 'there is no SimNet: cosine'))
    if len(unseen) < LEAST_UNSEEN:
        tried = judged(base, every, web, sim, (0.0,))
        why = (
            f'{len(unseen)} base classes were kept from SimNet (keep_back), and judging it takes '
            f'{LEAST_UNSEEN}: cosine'
        )
        return _said(Choice(_best(tried), tried, why))
    tried = judged(base, unseen, web, sim, MIXES)
    plain = _best([c for c in tried if not c.mix])
    best = _best(tried)
    gain = plain.loss - best.loss
    error = gain.std(ddof=1) / np.sqrt(len(gain))
    if best.mix and gain.mean() > error:
        why = f'SimNet counts {best.mix:.0%}: better than cosine by more than the standard error'
        return _said(Choice(best, tried, why))
    # Cosine never learnt: all base classes may judge it.
    again = judged(base, every, web, sim, (0.0,))
    why = 'SimNet is not clearly better than cosine on classes that it never saw: cosine'
    return _said(Choice(_best(again), tried, why))


def judged(
    base: Dataset, classes: Array, web: Dataset, sim: Similarity | None, mixes
) -> list[Candidate]:
    """Every mix and temperature on the same plantings among these base classes."""
    label, count = np.asarray(base.label), np.asarray(base.count)[classes]
    rows = np.flatnonzero(np.isin(label, classes))
    each = int(max(2, min(np.ceil(np.mean(web.count)), np.median(count), MOST)))
    ways = min(len(web.count), len(classes) // 2, int((count >= each).sum()))
    ways = max(2, min(ways, MOST_ITEMS // each))
    rng = np.random.default_rng(0)
    sets = [plant(rng, label[rows], ways=ways, each=each, share=s) for s in SHARES]
    pairs = [parts(sim, np.asarray(base.x)[rows[p.row]], max(mixes) > 0) for p in sets]
    return [
        _judged(mix, t, ways, [(mixed(*both, mix), p) for both, p in zip(pairs, sets, strict=True)])
        for mix in mixes
        for t in TEMPERATURES
    ]


def _judged(
    mix: float, temperature: float, ways: int, sets: list[tuple[Array, Planted]]
) -> Candidate:
    seen = [np.asarray(evidence_of(s, p.label, ways, temperature), np.float64) for s, p in sets]
    right = [p.clean for _, p in sets]
    fitted = fit_right_label(np.concatenate(seen), np.concatenate(right))
    odds = [log_odds(fitted, e) for e in seen]
    loss = [np.logaddexp(0, -np.where(r, o, -o)).mean() for o, r in zip(odds, right, strict=True)]
    found = [float(auroc(o, r)) for o, r in zip(odds, right, strict=True) if not r.all()]
    clean = [right_chance(fitted, e)[0] for e, r in zip(seen, right, strict=True) if r.all()]
    return Candidate(
        mix, temperature, np.array(loss), float(np.mean(found)), fitted, max(clean, default=0.0)
    )


def chances(choice: Choice, sim: Similarity | None, web: Dataset):
    """The chance of each web label to be right.

    Raises:
      InputError: so many images that all pairs of them don't fit into memory.
    Returns:
      [N]; the similarities within the classes, [N, max(count)], entry k that of the item to the
      k-th of its class; and the share of wrong labels with what was tried: {'wrong': [], 'tried':
      [K, 4] mix, temperature, loss and AUROC, 'taken': [4] the same, 'why': its bytes}.
    """
    label, best = np.asarray(web.label), choice.best
    if (need := PAIRS * 4 * len(label) ** 2) > MOST_BYTES:
        raise InputError(
            f"{len(label):,} web images: config.method.kind='planted' compares every pair of them, "
            f'which takes {need / 2**30:.1f} GiB, {MOST_BYTES / 2**30:.1f} at most: take fewer '
            "(config.data.per_class), or kind='mean', which compares those of one class"
        )
    s = mixed(*parts(sim, np.asarray(web.x), best.mix > 0), best.mix)
    within = np.zeros((len(s), int(np.max(web.count))), np.float32)
    for at, num in zip(np.asarray(web.offset), np.asarray(web.count), strict=True):
        within[at : at + num, :num] = s[at : at + num, at : at + num]
    seen = np.asarray(evidence_of(s, label, len(web.count), best.temperature), np.float64)
    wrong, chance = right_chance(best.fitted, seen)
    row = lambda c: (c.mix, c.temperature, c.loss.mean() if len(c.loss) else np.nan, c.auroc)
    more = {
        'wrong': np.float32(wrong),
        'tried': np.array([row(c) for c in choice.tried], np.float32).reshape(-1, 4),
        'taken': np.array(row(best), np.float32),
        'why': np.frombuffer(choice.why.encode(), np.uint8),
    }
    return chance.astype(np.float32), within, more


def parts(sim: Similarity | None, x: Array, learnt: bool) -> tuple[Array, Array | None]:
    """Cosine [N, N] of items about their mean, and with `learnt` SimNet's, both -1 to 1."""
    # Of images without an encoder: what SimNet's net makes of them.
    z = features_of(sim, x) if sim and (learnt or x.ndim > 2) else None
    flat = np.asarray(x if x.ndim == 2 or z is None else z, np.float32).reshape(len(x), -1)
    flat = flat - flat.mean(0)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9)
    return flat @ flat.T, 2 * all_pairs(sim, z) - 1 if learnt and sim else None


def mixed(cosine: Array, learnt: Array | None, mix: float) -> Array:
    """The similarity [N, N] of which SimNet has the share `mix`."""
    return cosine if learnt is None or not mix else (1 - mix) * cosine + mix * learnt


def _best(tried: list[Candidate]) -> Candidate:
    return min(tried, key=lambda c: float(c.loss.mean()))


def _said(choice: Choice) -> Choice:
    logging.info('weights of web images: %s', choice.why)
    return choice
