"""Images compared with what is remembered: scores, maps, and what their worst place is like."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from anyshot_jax.data.readers.images import Reading
from anyshot_jax.data.readers.notes import Notes
from anyshot_jax.detect.inputs import in_order
from anyshot_jax.detect.seeing import Contrast, Eye, Part, encode, parts, weights
from anyshot_jax.detect.views import View
from anyshot_jax.ops.neighbours import Prepared
from anyshot_jax.types import Array, InputError

WORST = 8  # patches of a normal image that are kept, by which its score follows the memory
# Of the vectors by which types are told: the whole image less than its most unusual place. About
# what the recipe has (`defects/residual.py`), whose units are those of images that are remembered.
COUNTS = (1.0, 1.0, 0.65)
LOW = 0.1  # the quantile of an image's distances that says whether it shows the product at all


class Looks(NamedTuple):
    """Settings by which images are looked at."""

    reading: Reading
    view: View
    turns: int  # turned copies of a normal image that are remembered with it
    foreground: str  # none, or how the object is found
    memory: int  # patches that are remembered, at most
    share: float  # of an image's patches, the worst, whose mean is its score; 0: the worst one
    seed: int


class Comparison(NamedTuple):
    """An image beside what is remembered of a product."""

    size: tuple[int, int]  # of the image, width and height
    score: float
    num: int  # patches whose mean distance that is
    low: float  # the LOW quantile of its distances
    dist: Array  # [rows, columns], or with a net `Contrast.value`; 0 where cells don't count
    row: Array  # [rows, columns] the nearest remembered patches, rows of the bank
    vectors: tuple[Array, Array, Array]  # peak [D], head at the peak [E], mean head [E]
    worst: Array  # [WORST or fewer, D] the patches of its worst places,
    worst_value: Array  # [WORST or fewer] the values there,
    worst_dist: Array  # [WORST or fewer] and their distances


def compare_images(
    eye: Eye,
    looks: Looks,
    items: Sequence[Any],
    names: Sequence[str],
    banks: Sequence[Prepared],
    say: str = '',
    counts_of: Callable | None = None,
    errors: dict[int, InputError] | None = None,
    notes: Notes | None = None,
) -> Iterator[tuple[int, list[Comparison]]]:
    """(number, what sets the image apart from each bank) of all that can be read.

    Args:
      banks: of each product.
      say: what the progress bar says; '': there is none. counts_of: as `seeing.parts` takes it.
      errors, notes: as `in_order` takes them.
    """
    images = ((i, image) for i, image, _ in in_order(items, names, looks.reading, errors, notes))
    gathered: _Image | None = None
    with tqdm(total=len(items), desc=say, disable=None if say else True) as bar:
        for batch, seen in encode(
            eye,
            parts(images, looks.view, eye.cells, looks.foreground, counts_of),
            looks.foreground,
        ):
            weight = weights(batch, len(seen.patches))
            told = [eye.compare(seen, bank, weight, eye.net) for bank in banks]
            told = [Contrast(*map(np.asarray, one)) for one in told]
            patches = np.asarray(seen.patches)
            for i, part in enumerate(batch):
                if gathered is None or gathered.number != part.image:
                    if gathered is not None:
                        yield gathered.number, gathered.found(looks.share)
                        bar.update()
                    gathered = _Image(part, len(banks))
                gathered.add(part, [Contrast(*(a[i] for a in one)) for one in told], patches[i])
        if gathered is not None:
            yield gathered.number, gathered.found(looks.share)
            bar.update()


class _Image:
    """An image whose squares come one by one."""

    def __init__(self, part: Part, num: int):
        self.number, self.size = part.image, part.size
        self.dist = np.zeros((num, *part.grid), np.float32)
        self.value = np.zeros((num, *part.grid), np.float32)
        self.row = np.zeros((num, *part.grid), np.int32)
        self.counts = np.zeros(part.grid, bool)
        self.top = [-1.0] * num
        self.peak: list[Any] = [None] * num
        self.whole: list[Array] = []
        self.worst: list[tuple[Array, Array, Array]] = []  # of the first bank, see `Comparison`

    def add(self, part: Part, told: Sequence[Contrast], patches: Array) -> None:
        own, at = part.square.own, part.square.at
        self.counts[at] = part.weight[own] > 0
        self.whole.append(told[0].whole)
        for i, one in enumerate(told):
            self.dist[i][at], self.row[i][at] = one.dist[own], one.row[own]
            self.value[i][at] = one.value[own]
            if one.dist.max() > self.top[i]:
                self.top[i], self.peak[i] = float(one.dist.max()), (one.peak, one.head)
        value = told[0].value.reshape(-1)
        some = np.argsort(-value, kind='stable')[:WORST]
        some = some[part.weight.reshape(-1)[some] > 0]
        row, column = np.unravel_index(some, part.weight.shape)
        times = len(part.weight) // len(patches)
        near = patches[row // times, column // times]
        self.worst.append((value[some], told[0].dist.reshape(-1)[some], near))

    def found(self, share: float) -> list[Comparison]:
        worst = [np.concatenate(a) for a in zip(*self.worst, strict=True)]
        order = np.argsort(-worst[0], kind='stable')[:WORST]
        value, dist, rows = (a[order] for a in worst)
        whole = np.mean(self.whole, 0)
        counted = [np.sort(v[self.counts])[::-1] for v in self.value]
        num = max(1, round(share * len(counted[0])))
        return [
            Comparison(
                self.size,
                float(of[:num].mean()) if len(of) else 0.0,
                num,
                float(np.quantile(self.dist[i][self.counts], LOW)) if len(of) else 0.0,
                self.value[i],
                self.row[i],
                (*self.peak[i], whole),
                rows,
                value,
                dist,
            )
            for i, of in enumerate(counted)
        ]


def usual(found: Sequence[Comparison]) -> tuple[tuple[Array, ...], tuple[float, ...]]:
    """The mean of each vector of normal images, and its unit: how far they are, over COUNTS."""
    mean, far = [], []
    for i, counts in enumerate(COUNTS):
        of_images = np.stack([one.vectors[i] for one in found])
        mean.append(of_images.mean(0))
        spread = float(np.linalg.norm(of_images - mean[-1], axis=1).mean())
        far.append((spread if spread > 1e-6 else 1.0) / counts)
    return tuple(mean), tuple(far)
