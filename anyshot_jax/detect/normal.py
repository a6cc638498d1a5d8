"""One product: its memory, and normal images held out from it."""

import difflib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image
from tqdm import tqdm

from anyshot_jax.data.readers.notes import Notes
from anyshot_jax.detect import memory, views
from anyshot_jax.detect.inputs import content, in_order
from anyshot_jax.detect.memory import Fold
from anyshot_jax.detect.scores import WORST, Comparison, Looks, compare_images, usual
from anyshot_jax.detect.seeing import Eye, encode, parts
from anyshot_jax.ops.neighbours import Prepared, prepared
from anyshot_jax.types import Array, InputError

BLOCK = 2048  # patches that the search takes together (`ops/neighbours.py`)
HELD_OUT = 2000  # images that are scored held out, at most: more say little of a quantile


class HeldOut(NamedTuple):
    """Normal images, each scored by all folds but its own."""

    number: Array  # [M] int32, which image
    score: Array  # [M] float32, see `follow` where images were added later
    first: Array  # [M] float32, the score when it was judged
    num: Array  # [M] int32, patches whose mean distance that is
    low: Array  # [M] float32
    dist: Array  # [M, WORST] float32, values of its worst patches then; -1: fewer are there
    more: Array  # [M, WORST] float32, what a net adds to their distances
    worst: Array  # [M, WORST, D] float32


class Normal(NamedTuple):
    """One product."""

    folds: tuple[Fold, ...]
    fold_of: Array  # [N] int32 of every normal image
    group: tuple[str, ...]  # [N] equal for near copies
    names: tuple[str, ...]  # [N]
    sizes: Array  # [N, 2] int32 width and height
    held_out: HeldOut
    mean: tuple[Array, ...]  # of each vector of `Comparison`, over normal images
    far: tuple[float, ...]  # its unit: how far from it those are, over `scores.COUNTS`
    grey: Array  # [N] int32: 1 grey, 0 in colour, -1: not known, in files of format 2
    per: float  # distance that counts as 1, where a net adds to it


class Bank(NamedTuple):
    """All folds' patches, filled up to a length that changes seldom."""

    rows: Array  # [K, D]
    fold: np.ndarray  # [K] int32; -1: filling
    search: Prepared  # among all that is no filling, on the device


def bank_of(normal: Normal) -> Bank:
    rows = np.concatenate([f.rows for f in normal.folds])
    fold = np.repeat(np.arange(len(normal.folds)), [len(f.rows) for f in normal.folds])
    length = 256
    while length < min(len(rows), BLOCK):
        length *= 2
    if len(rows) > BLOCK:
        length = -(-len(rows) // BLOCK) * BLOCK
    lack = length - len(rows)
    rows = np.pad(rows, ((0, lack), (0, 0)))
    fold = np.pad(fold, (0, lack), constant_values=-1)
    return Bank(rows, fold, prepare(rows, fold >= 0))


prepare = jax.jit(prepared)


def where(normal: Normal, row: int) -> tuple[int, tuple[int, int]]:
    """The number of the image that a row of the bank is of, and its cell there."""
    for fold in normal.folds:
        if row < len(fold.rows):
            return int(fold.image[row]), (int(fold.cell[row, 0]), int(fold.cell[row, 1]))
        row -= len(fold.rows)
    raise IndexError(row)


def nothing(dim: int) -> Normal:
    none = np.zeros(0, np.float32)
    ints = np.zeros(0, np.int32)
    few = np.zeros((0, WORST), np.float32)
    held = HeldOut(ints, none, none, ints, none, few, few, np.zeros((0, WORST, dim), np.float32))
    return Normal((), ints, (), (), np.zeros((0, 2), np.int32), held, (), (), ints, 1.0)


def extend(
    eye: Eye,
    looks: Looks,
    before: Normal,
    items: Sequence[Any],
    names: Sequence[str],
    groups: Sequence[Any] | None,
    say: str,
    notes: Notes | None = None,
    spent: Array | tuple[()] = (),
) -> Normal:
    """Learns more normal images of a product.

    They pass twice: patches are remembered, then images are scored held out.

    Args:
      groups: of each image, equal for near copies; none: only images of equal content are.
      notes: as `in_order` takes it. spent: images that a net was made of, which are not scored.
    Raises:
      InputError: an image that can't be read; names it.
    """
    matrix = memory.projection(eye.dim, looks.seed)
    first = len(before.names)
    named = [f'={g}' for g in groups] if groups is not None else []
    named = named or [content(x, name, looks.reading) for x, name in zip(items, names, strict=True)]
    fold_of = _folds_of(before, named)
    folds = list(before.folds)
    folds += [memory.empty(eye.dim) for _ in range(len(folds), int(fold_of.max()) + 1)]
    most = max(1, looks.memory // len(folds))
    sizes, grey = np.zeros((len(items), 2), np.int32), np.zeros(len(items), np.int32)

    def turned() -> Iterator[tuple[int, Image.Image]]:
        for i, image, grey[i] in in_order(items, names, looks.reading, notes=notes):
            sizes[i] = image.size
            for copy in views.copies(image, looks.turns):
                yield i, copy

    side = eye.cells // eye.times
    cells = np.stack(np.unravel_index(np.arange(side**2), (side, side)), 1) * eye.times
    with tqdm(total=len(items), desc=f'remember {say}', disable=None) as bar:
        for batch, seen in encode(
            eye, parts(turned(), looks.view, eye.cells, looks.foreground), looks.foreground
        ):
            flat = np.asarray(seen.patches).reshape(len(seen.patches), -1, eye.dim)
            for part, own in zip(batch, flat, strict=False):
                whole = part.weight.reshape(side, eye.times, side, eye.times).max((1, 3))
                counts = whole.reshape(-1) > 0
                start = [
                    at.start - o.start
                    for at, o in zip(part.square.at, part.square.own, strict=True)
                ]
                k = fold_of[part.image]
                folds[k] = memory.remember(
                    folds[k], own[counts], first + part.image, cells[counts] + start, matrix,
                    most, looks.seed,
                )  # fmt: skip
            bar.update(batch[-1].image + 1 - bar.n)
    folds = [memory.thin(fold, most, looks.seed) for fold in folds]
    after = before._replace(
        folds=tuple(folds),
        fold_of=np.concatenate([before.fold_of, fold_of]).astype(np.int32),
        group=(*before.group, *named),
        names=(*before.names, *names),
        sizes=np.concatenate([before.sizes, sizes]),
        grey=np.concatenate([before.grey, grey]),
        per=eye.net.far if eye.net else 1.0,
    )
    return _held_out(eye, looks, after, items, names, say, spent)


def without(normal: Normal, name: str) -> Normal:
    """A product after the images of a name, their patches and held-out scores were forgotten.

    Held-out scores of the others follow (`follow`); what is usual stays as it was measured.

    Raises:
      InputError: no such image, or no other.
    """
    gone = np.array([n == name for n in normal.names])
    if not gone.any():
        close = difflib.get_close_matches(name, normal.names, n=1)
        hint = f'; did you mean {close[0]!r}?' if close else ''
        raise InputError(f'there is no normal image {name!r}{hint}')
    if gone.all():
        raise InputError(f'{name} is the only normal image: fit on others')
    number = np.cumsum(~gone) - 1  # of those that stay
    folds = []
    for fold in normal.folds:
        kept = memory.rows_of(fold, ~gone[fold.image])
        folds.append(kept._replace(image=number[kept.image].astype(np.int32)))
    if not any(len(fold.rows) for fold in folds):
        raise InputError(f'{name} is all that is remembered, the others are near copies: fit again')
    fold_of, held = normal.fold_of[~gone], normal.held_out
    stays = ~gone[held.number] & _comparable(folds, normal.fold_of[held.number])
    held = HeldOut(*(a[stays] for a in held))
    after = normal._replace(
        folds=tuple(folds),
        fold_of=fold_of,
        group=tuple(g for g, out in zip(normal.group, gone, strict=True) if not out),
        names=tuple(n for n in normal.names if n != name),
        sizes=normal.sizes[~gone],
        grey=normal.grey[~gone],
        held_out=held._replace(number=number[held.number].astype(np.int32)),
    )
    return after._replace(held_out=follow(after, bank_of(after)))


def _folds_of(before: Normal, group: Sequence[str]) -> np.ndarray:
    """[n] of new images; a group that is there already stays in its fold."""
    known = dict(zip(before.group, before.fold_of.tolist(), strict=True))
    fold_of = np.array([known.get(g, -1) for g in group])
    fresh = np.flatnonzero(fold_of < 0)
    if len(fresh):
        counts = np.bincount(before.fold_of, minlength=len(before.folds)).tolist()
        fold_of[fresh] = memory.assign_folds(np.array(group)[fresh], counts)
    return fold_of


def _comparable(folds: Sequence[Fold], fold_of: Array) -> np.ndarray:
    """[n] bool: images of these folds beside which another one has patches."""
    num = np.array([len(f.rows) for f in folds])
    return num.sum() > num[fold_of]


def _held_out(
    eye: Eye,
    looks: Looks,
    after: Normal,
    items: Sequence[Any],
    names: Sequence[str],
    say: str,
    spent: Array | tuple[()],
) -> Normal:
    """Old images' scores follow the memory; new ones are scored; the usual vectors are measured."""
    bank = bank_of(after)
    old = follow(after, bank)
    first = len(after.names) - len(items)
    room = max(HELD_OUT - len(old.number), 0)
    unseen = np.setdiff1d(np.arange(len(items)), spent)
    many = min(len(unseen), room)
    chosen = unseen[np.unique(np.linspace(0, len(unseen) - 1, many).astype(int))]
    chosen = chosen[_comparable(after.folds, after.fold_of[first + chosen])]
    chosen = chosen[np.argsort(after.fold_of[first + chosen], kind='stable')]
    found: list[Comparison] = []
    for k in np.unique(after.fold_of[first + chosen]):
        of_fold = chosen[after.fold_of[first + chosen] == k]
        search = prepare(bank.rows, (bank.fold >= 0) & (bank.fold != k))
        some = [items[i] for i in of_fold], [names[i] for i in of_fold]
        told = compare_images(eye, looks, *some, [search], f'hold out {say}')
        found += [f for _, (f,) in told]
    score, low = (np.array([getattr(f, k) for f in found], np.float32) for k in ('score', 'low'))
    num = np.array([f.num for f in found], np.int32)
    number = (first + chosen).astype(np.int32)
    new = HeldOut(number, score, score, num, low, *_worst(found, after.per, eye.dim))
    held = HeldOut(*(np.concatenate([a, b]) for a, b in zip(old, new, strict=True)))
    after = after._replace(held_out=held)
    if not found or after.mean:  # what is usual was measured when there was enough to do it
        return after
    mean, far = usual(found)
    return after._replace(mean=mean, far=far)


def _worst(
    found: Sequence[Comparison], per: float, dim: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    value = np.full((len(found), WORST), -1, np.float32)
    more = np.zeros((len(found), WORST), np.float32)
    rows = np.zeros((len(found), WORST, dim), np.float32)
    for i, f in enumerate(found):
        num = len(f.worst)
        value[i, :num], rows[i, :num] = f.worst_value, f.worst
        more[i, :num] = f.worst_value - f.worst_dist / per
    return value, more, rows


def follow(normal: Normal, bank: Bank) -> HeldOut:
    """Scores of held-out images after the memory has changed.

    Their worst patches are compared again, without their image's fold; those that weren't kept are
    taken to be as far as the nearest of the kept ones was, which they were at most: where patches
    were added and none was thinned out, scores are upper bounds of what they would be. Where
    patches were removed those that weren't kept may be farther now, and scores too low.
    """
    held = normal.held_out
    if not len(held.number):
        return held
    score = held.score.copy()
    for k in np.unique(normal.fold_of[held.number]):
        of_fold = np.flatnonzero(normal.fold_of[held.number] == k)
        others = bank.rows[(bank.fold >= 0) & (bank.fold != k)]
        for i in of_fold:
            kept = held.dist[i][held.dist[i] >= 0]
            own = held.worst[i, : len(kept)]
            near = others[memory.squared(own, others).argmin(1)]
            new = np.linalg.norm(own - near, axis=1)  # by differences, which loses no digits
            new = new / normal.per + held.more[i, : len(kept)]
            top = min(int(held.num[i]), len(kept))
            both = np.sort(np.concatenate([new, np.full(top, kept[-1])]))[::-1]
            score[i] = held.first[i] - (kept[:top] - both[:top]).sum() / held.num[i]
    return held._replace(score=score)
