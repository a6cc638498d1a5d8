"""A frozen encoder that is loaded and compiled once a process, for images as they come."""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import numpy as np

from anyshot_jax import encoders
from anyshot_jax.classify import word_means
from anyshot_jax.classify.picture_input import READING, squares
from anyshot_jax.config import under
from anyshot_jax.data.readers.images import Reading
from anyshot_jax.data.readers.notes import Notes
from anyshot_jax.encoders import ImageEncoder
from anyshot_jax.encoders.catalogue import last_layer
from anyshot_jax.runtime import fork
from anyshot_jax.runtime.bars import bar
from anyshot_jax.runtime.devices import map_rows
from anyshot_jax.types import Array, InputError

BATCH = 16  # images at once; fewer than half of that pass one by one


class Frozen(NamedTuple):
    """An encoder of images and its compiled function."""

    which: str
    encoder: ImageEncoder
    size: int  # pixels of a side as it takes images
    apply: Callable  # (params, images [N, size, size, 3] uint8) -> [N, D]
    params: Any

    @property
    def dim(self) -> int:
        return self.encoder.dim

    def of_squares(self, x: Array | list[Array]) -> Array:
        """[N, D] of [N, size, size, 3] uint8, N <= BATCH; two shapes only are ever compiled.

        Of what is seen in tiles, [N, T, size, size, 3] or some of a list, the mean of an image's.
        """
        assert len(x) <= BATCH  # more would be cut off
        fork.check()
        if isinstance(x, list) or x.ndim == 5:
            parts = [one if one.ndim == 4 else one[None] for one in x]
            flat = np.concatenate(parts)
            found = [self.of_squares(flat[i : i + BATCH]) for i in range(0, len(flat), BATCH)]
            ends = np.cumsum([len(part) for part in parts])[:-1]
            return np.stack([z.mean(0) for z in np.split(np.concatenate(found), ends)])
        if len(x) < BATCH // 2:
            found = [self.apply(self.params, x[i : i + 1]) for i in range(len(x))]
            return np.concatenate([np.zeros((0, self.dim), np.float32), *map(np.asarray, found)])
        return np.asarray(map_rows(partial(self.apply, self.params), x, size=BATCH))

    def features(
        self, items: Sequence[Any], how: Reading = READING, notes: Notes | None = None
    ) -> Array:
        """[N, D] float32 of images, read and embedded a few at a time.

        Args:
          notes: takes what of the images is worth a word.
        Raises:
          InputError: one that can't be read; says which.
        """
        return self.features_and(items, lambda x: np.zeros((len(x), 0)), how, notes)[0]

    def features_and(
        self, items: Sequence[Any], also: Callable[[Any], Array], how: Reading = READING,
        notes: Notes | None = None,
    ):  # fmt: skip
        """(`features`, also(squares [n, size, size, 3]) of all)."""
        parts = [(self.of_squares(x), also(x)) for x in self._read(items, how, notes)]
        x = np.concatenate([p[0] for p in parts])
        return x, np.concatenate([p[1] for p in parts])

    def of_all(
        self, items: Sequence[Any], what: Callable[[Any], Array], how: Reading = READING
    ) -> Array:
        """what(squares [n, size, size, 3]) of all, without features."""
        return np.concatenate([what(x) for x in self._read(items, how, None)])

    def _read(
        self, items: Sequence[Any], how: Reading, notes: Notes | None
    ) -> Iterator[Array | list[Array]]:
        with bar(total=len(items), desc='embed images', leave=False) as shown:
            for start in range(0, max(len(items), 1), BATCH):
                yield squares(items[start : start + BATCH], self.size, start, how, notes)
                shown.update(BATCH)

    def imagenet(self, text_encoder: str) -> word_means.Known | None:
        """Weights of ImageNet's classes in its last layer, if it has one."""
        head = last_layer(_parts(self.which)[0])
        if head is not None:  # joined parts come last, and say nothing of those classes
            head = np.pad(head, ((0, 0), (0, self.dim - head.shape[1])))
        return word_means.imagenet(head, text_encoder)


@cache
def frozen(which: str) -> Frozen:
    """The encoder `which`, as `encoders.load` takes it.

    Earlier maps are joined to its features by +NAME: 'efficientnet_lite0+stride16', which is better
    for surfaces (`parts` of `encoders.load`).

    Raises:
      InputError: as `encoders.load`, or it reads texts.
    """
    name, parts = _parts(which)
    with under('', parts='encoder'):
        encoder = encoders.load(name, parts=parts)
    if not isinstance(encoder, ImageEncoder):
        raise InputError(f'encoder={which!r} reads texts, not images')
    fork.started()
    apply = jax.jit(lambda params, x: encoder.apply(params, encoder.preprocess(x)))
    return Frozen(which, encoder, encoder.size, apply, jax.device_put(encoder.params))


def _parts(which: str) -> tuple[str, tuple[str, ...]]:
    """'NAME+stride8+colours' -> NAME and its parts; a path may have a + of its own."""
    joined = re.search(r'(?:\+(?:stride\d+|colours))*$', which)
    assert joined  # it may be empty
    return which[: joined.start()], tuple(joined[0].split('+')[1:])
