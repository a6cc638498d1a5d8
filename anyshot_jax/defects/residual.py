"""Residual features: patch features of a frozen encoder minus their nearest normal ones.

The patches of an image are compared with those of normal images (`memory_bank.py`): what a patch
has that its nearest normal one has not is its residual. 'map' keeps the residuals where they are,
for nets of convolutions (Anomaly multi-classification in industrial scenarios, arXiv 2406.05645).
'peak' makes one vector of them: the residual where the image is most unlike the normal ones, the
encoder's last map there, and that map's mean over the whole image, which knows what surrounds a
defect and how far it reaches. Each of the three is taken relative to the mean of the normal images
and counts by how far it is from them.

The paper's prototypes are made of mean images: data.averaged has them for drawn support.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from anyshot_jax.config import check_choices, under
from anyshot_jax.defects import memory_bank
from anyshot_jax.encoders.pretrained import digest
from anyshot_jax.episodes import sampling
from anyshot_jax.storage.cache import cached
from anyshot_jax.types import Array, Data, Dataset, InputError, nearest

CHOICES = {'output': ('peak', 'map'), 'synthetic_against': ('nearest', 'source')}


def embed(data: Data, fields: ConfigDict, seed: int = 0) -> Data:
    """The roles of defects with residuals in place of images; normal images are used up.

    Args:
      data: role 'good', and others of uint8 images [N, H, W, C]. In synthetic ones (train, val)
        `group` is the row of an item's clean image in 'good'.
      fields: config.residual. seed: of the draws in `averaged`; the bank is the same for all.
    Returns:
      x is [N, D] float32 with its parts, or [N, h, w, D] float16. With fields.average_shots also
      `averaged`: {'support': rows of test [draws, C, S], '2-shot': [draws, C, D] or
      [draws, C, h, w, D], what the mean images of the first 2 are seen as, ...}.
    Raises:
      InputError: an unknown value, no normal images, or as `memory_bank`.
    """
    check_choices(fields, CHOICES, 'config.residual')
    if fields.sharpness < 0:
        raise InputError(f'config.residual.sharpness={fields.sharpness} must be >= 0')
    if 'good' not in data.roles or data.roles['good'].x.dtype != np.uint8:
        raise InputError(
            f'config.residual.encoder={fields.encoder!r} compares with normal images, but the data '
            f'have the roles {", ".join(data.roles)}: use config.data.name=mvtec'
        )
    good = data.roles['good'].x
    with under('config.residual'):
        patcher = memory_bank.load_patcher(
            fields.encoder, fields.layers, size=fields.size, dim=fields.dim
        )
        bank = memory_bank.fit(patcher, good, ratio=fields.ratio)
    # Not which images are averaged: those are looked at like any others.
    settings = [(k, v) for k, v in fields.items() if not k.startswith('average_')]
    key = [patcher.digest, digest(bank, ()), repr(sorted(settings))]
    describe = (_peak if fields.output == 'peak' else _map)(patcher, fields)

    def described(x: Array, source: Array | None, what: str) -> list[Array]:
        images = x if source is None else (x, good[source])

        def compute():
            parts = memory_bank.over_images(patcher, describe, images, bank, what=what)
            return {str(i): part for i, part in enumerate(parts)}

        parts = cached('residual', [*key, digest(images, ())], compute)
        return [parts[str(i)] for i in range(len(parts))]

    normal = described(good, None, 'see good') if fields.output == 'peak' else None

    def features(parts):
        if normal is None:
            return parts[0]
        return np.concatenate([_relative(p, n) for p, n in zip(parts, normal, strict=True)], -1)

    roles, averaged = {}, {}
    for role, dataset in data.roles.items():
        if role in ('good', 'good_test'):
            continue
        by_source = fields.synthetic_against == 'source' and role in ('train', 'val')
        if by_source and dataset.group is None:
            raise InputError(
                f"config.residual.synthetic_against='source': nothing says which normal image an "
                f"item of {role} was made on (its group); use 'nearest'"
            )
        parts = described(dataset.x, dataset.group if by_source else None, f'see {role}')
        sizes = () if normal is None else tuple(p.shape[1] for p in parts)
        roles[role] = dataclasses.replace(dataset, x=features(parts), parts=sizes)
    if fields.average_shots:
        test, shots = data.roles['test'], fields.average_shots
        support = draws_of(test, max(shots), fields.average_draws, seed)
        averaged['support'] = support
        for k in shots:
            x = mean_images(test.x, support[:, :, :k])
            of_means = features(described(x.reshape(-1, *x.shape[2:]), None, f'see means of {k}'))
            averaged[f'{k}-shot'] = of_means.reshape(*x.shape[:2], *of_means.shape[1:])
    return dataclasses.replace(data, roles=roles, averaged=averaged)


def draws_of(dataset: Dataset, shots: int, draws: int, seed: int) -> Array:
    """Rows [draws, C, shots] of support from different groups (`episodes.draw_support`)."""
    keys = jax.random.split(jax.random.key(seed), draws)
    one = lambda key: sampling.draw_support(key, dataset, shots)
    return np.asarray(jax.jit(lambda keys: jax.lax.map(one, keys))(keys))


def mean_images(x: Array, support: Array) -> Array:
    """Means over shots, rounded to whole grey levels: uint8 [draws, C, H, W, channels].

    Args:
      x: [N, H, W, channels] uint8. support: [draws, C, shots] rows.
    Reference:
      arXiv 2406.05645's code averages the normalised images, which is the same but for rounding.
    """
    one = lambda rows: np.rint(x[rows].mean(1)).astype(np.uint8)
    return np.stack([one(rows) for rows in support])


def _relative(x: Array, normal: Array) -> Array:
    """[N, D] around the mean of the normal ones [M, D], in units of their mean distance from it."""
    mean = normal.mean(0)
    far = np.linalg.norm(normal - mean, axis=1).mean()
    # Normal images that are remembered whole have residual 0, which says nothing of a unit.
    return (x - mean) / (far if far > 1e-6 else 1)


def _compare(patcher, fields, params, images, bank):
    """(the encoder's maps, patches or residuals [N, h, w, D], distances from normal [N, h, w]).

    Args:
      images: [N, H, W, C], or those and the images that they are compared with.
    """
    x, *source = images if isinstance(images, tuple) else (images,)
    maps = patcher.maps(params, x)
    patches = patcher.patches(maps)
    if source:
        normal = patcher.apply(params, source[0])
    else:
        normal = bank[memory_bank.nearest_patches(bank, patches)[1][..., 0]]
    residual = patches - normal
    dist = jnp.linalg.norm(residual, axis=-1)
    return maps, residual if fields.subtract else patches, dist


def _map(patcher, fields):
    def describe(params, x, bank):
        return (_compare(patcher, fields, params, x, bank)[1].astype(jnp.float16),)

    return describe


def _peak(patcher, fields):
    def describe(params, x, bank):
        maps, patches, dist = _compare(patcher, fields, params, x, bank)
        parts = [weighted_mean(patches, dist, fields.sharpness)]
        if fields.head:
            head = maps.get(fields.head)
            if head is None:
                raise InputError(f'the encoder has no map {fields.head!r} for config.residual.head'
                                 f'{nearest(fields.head, maps)}')  # fmt: skip
            whole = jnp.zeros_like(dist)
            # Square roots even out what is large after ReLU (nets/projection.py).
            for of in (dist, whole):
                mean = weighted_mean(head, pooled(of, head.shape[1:3]), fields.sharpness)
                parts.append(jnp.sqrt(jnp.maximum(mean, 0)))
        return tuple(parts)

    return describe


def weighted_mean(x: Array, dist: Array, sharpness: float) -> Array:
    """Mean over space with weights dist^sharpness: 0 the mean, infinite the farthest patch.

    Args:
      x: [N, h, w, D]. dist: [N, h, w] >= 0; where all are 0 every patch weighs the same.
    Returns:
      [N, D].
    """
    largest = dist.max((1, 2), keepdims=True)
    share = jnp.where(largest > 0, dist / jnp.where(largest > 0, largest, 1), 1)
    weight = share**sharpness
    weight = weight / weight.sum((1, 2), keepdims=True)
    return jnp.einsum('nhw,nhwd->nd', weight, x, precision='highest')


def pooled(dist: Array, shape: tuple[int, int]) -> Array:
    """[N, h, w] -> [N, *shape]: the largest of each cell, or the nearest where cells are finer."""
    for axis, size in ((1, shape[0]), (2, shape[1])):
        given = dist.shape[axis]
        if size >= given:
            dist = jnp.take(dist, np.arange(size) * given // size, axis)
        else:
            cells = np.arange(given) * size // given
            starts = jnp.moveaxis(dist, axis, 0)
            pooled = jnp.zeros((size, *starts.shape[1:]), dist.dtype).at[cells].max(starts)
            dist = jnp.moveaxis(pooled, 0, axis)
    return dist
