"""A dataset seen through a frozen encoder: every image embedded once, kept for later runs."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from anyshot_jax.encoders import ImageEncoder, TextEncoder, load
from anyshot_jax.encoders.pretrained import digest
from anyshot_jax.episodes.sampling import expand_turns
from anyshot_jax.runtime.bars import bar
from anyshot_jax.runtime.devices import stream_rows
from anyshot_jax.storage.cache import cached
from anyshot_jax.target import on_cpu
from anyshot_jax.types import ArgumentError, Array, Data, Dataset, Episode

CHUNK, CHUNK_CPU = 256, 8  # images on a device at once; on a CPU more need memory, not less time


def embed(data: Data, which: str, *, dtype: str = 'float32', parts: Sequence[str] = ()) -> Data:
    """The same classes, with the encoder's features for images. Rotated classes become items.

    Features lie in the cache directory under the hash of images, weights and preprocessing.

    Args:
      which, dtype, parts: as for `encoders.load`.
    Raises:
      ArgumentError: the data aren't images, or the encoder isn't one of images.
      InputError: as `encoders.load`.
    """
    encoder = load(which, dtype=dtype, parts=parts)
    if isinstance(encoder, TextEncoder):
        raise ArgumentError('which', f'={which!r} reads texts, not images')
    for role, dataset in data.roles.items():
        if dataset.x.ndim != 4 or dataset.x.dtype != np.uint8:
            raise ArgumentError(
                'which',
                f'={which!r} embeds images, but the {role} items are features '
                f'{dataset.x.shape[1:]}: leave it empty',
            )
    return dataclasses.replace(
        data,
        roles={role: _embedded(d, encoder, role) for role, d in data.roles.items()},
        tasks={name: _embedded_tasks(e, encoder, name) for name, e in data.tasks.items()},
    )


def _embedded(dataset: Dataset, encoder: ImageEncoder, role: str) -> Dataset:
    key = [encoder.digest, digest(dataset.x, dataset.turns)]
    dataset = expand_turns(dataset)
    kept = cached(
        f'features-{encoder.name}', key, lambda: {'x': features(encoder, dataset.x, role)}
    )
    return dataclasses.replace(dataset, x=kept['x'], parts=encoder.parts)


def _embedded_tasks(tasks: Episode, encoder: ImageEncoder, name: str) -> Episode:
    """Few images, so not kept."""

    def of(x):
        z = features(encoder, x.reshape(-1, *x.shape[2:]), name)
        return z.reshape(*x.shape[:2], -1)

    return tasks._replace(x_s=of(tasks.x_s), x_q=of(tasks.x_q))


def features(encoder: ImageEncoder, x: Array, what: str = '') -> Array:
    """[N, dim] float32 of images [N, H, W, C] uint8, a few at a time on every device."""
    result = np.empty((len(x), encoder.dim), np.float32)
    function = lambda params, x: encoder.apply(params, encoder.preprocess(x))
    size = CHUNK_CPU if on_cpu() else CHUNK
    with bar(total=len(x), desc=f'embed {what} images') as shown:
        for rows, z in stream_rows(function, encoder.params, x, size=size):
            result[rows] = z
            shown.update(len(rows))
    return result
