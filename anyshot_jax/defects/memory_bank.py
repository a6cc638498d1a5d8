"""A memory of what is normal: patch features of normal images, and how others differ from them.

Roth et al., "Towards total recall in industrial anomaly detection" (PatchCore), CVPR 2022.

    patcher = load_patcher('efficientnet_lite0', ('stride16', 'stride32'), size=224)
    bank = fit(patcher, data.roles['good'].x, ratio=0.1)   # [K, D]
    r = residuals(patcher, bank, data.roles['test'].x)     # [N, h, w, D]
    s = anomaly_maps(patcher, bank, data.roles['test'].x)  # [N, h, w]

Images pass a few at a time on every device, so that all patches of them are never there at once.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from anyshot_jax.encoders import TextEncoder, load
from anyshot_jax.encoders.pretrained import digest
from anyshot_jax.ops.coreset import greedy_coreset, random_projection
from anyshot_jax.ops.neighbours import nearest
from anyshot_jax.ops.patches import locally_aware
from anyshot_jax.ops.product import product
from anyshot_jax.runtime.bars import bar
from anyshot_jax.runtime.devices import stream_rows
from anyshot_jax.storage.cache import cached
from anyshot_jax.target import on_cpu
from anyshot_jax.types import ArgumentError, Array
from anyshot_jax.types import nearest as nearest_name

CHUNK, CHUNK_CPU = 64, 4  # images on a device at once


class Patcher(NamedTuple):
    """Images into patch features."""

    apply: Callable  # (params, images [N, H, W, C] uint8) -> [N, h, w, D] float32
    params: Any
    shape: tuple[int, int, int]  # h, w, D
    digest: str  # equal digests give equal patches
    maps: Callable = lambda params, x: {}  # (params, images) -> the encoder's maps by name
    patches: Callable = lambda maps: None  # maps -> [N, h, w, D]: apply is this after maps


def load_patcher(
    encoder: str, layers: Sequence[str], *, size: int = 0, dim: int = 0, dtype: str = 'float32'
) -> Patcher:
    """Locally aware patches (`ops/patches.py`) of a frozen encoder.

    Args:
      encoder, dtype: as for `encoders.load`. layers: names of its maps, such as 'stride8'.
      size: pixels of the images' shorter side as the net sees them; 0: what it was trained on.
      dim: numbers a patch; 0: all channels of the layers.
    Raises:
      ArgumentError: no such layer, or a size or dim that they can't have.
      InputError: no such encoder, or weights that can't be had.
    """
    net = load(encoder, dtype=dtype, size=size)
    if isinstance(net, TextEncoder):
        raise ArgumentError('encoder', f'={encoder!r} reads texts, not images')

    def maps(params, x):
        return net.maps(params, net.preprocess(x))

    def patches(found):
        return locally_aware([found[name] for name in layers], dim)

    def apply(params, x):
        return patches(maps(params, x))

    x = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.uint8)
    known = jax.eval_shape(maps, net.params, x)
    for name in layers:
        if name not in known:
            hint = nearest_name(str(name), known)
            raise ArgumentError('layers', f': {net.name} has no map {name!r}{hint}')
    if not layers:
        raise ArgumentError('layers', ' is empty: name one map or more')
    shape = jax.eval_shape(apply, net.params, x).shape[1:]
    key = digest((), [net.digest, tuple(layers), dim])
    return Patcher(apply, net.params, shape, key, maps, patches)


def fit(
    patcher: Patcher,
    images: Array,
    *,
    ratio: float = 0.1,
    projection: int = 128,
    seed: int = 0,
) -> Array:
    """The memory bank: patches of normal images, thinned out to a greedy k-centre coreset.

    Two passes over the images: the first keeps a random projection of every patch, on which the
    coreset is chosen, the second fetches the chosen ones whole. Kept in the cache directory.

    Args:
      images: [N, H, W, C] uint8. ratio: share of the patches to keep, 0 < ratio <= 1; at 1 all
        of them stay, in their order. projection: numbers of that projection; 0: none, the patches
        themselves are compared. seed: of the projection and the start points.
    Returns:
      [floor(ratio * patches) or 1, D] float32.
    Raises:
      ArgumentError: a ratio or projection that can't be.
    """
    if not 0 < ratio <= 1:
        raise ArgumentError('ratio', f'={ratio} must be > 0 and <= 1')
    if projection < 0:
        raise ArgumentError('projection', f'={projection} must be >= 0')
    key = [patcher.digest, digest(images, ()), ratio, projection, seed]
    chosen = lambda: {'x': choose(patcher, images, ratio, projection, seed)[0]}
    return cached('bank', key, chosen)['x']


def choose(
    patcher: Patcher, images: Array, ratio: float, projection: int, seed: int
) -> tuple[Array, Array]:
    """`fit` without its cache, and which patches the bank has: rows of all [N * h * w], [K]."""
    h, w, d = patcher.shape
    total = len(images) * h * w
    num = max(1, int(ratio * total))
    bank = np.empty((num, d), np.float32)
    whole = lambda params, x: patcher.apply(params, x).reshape(len(x), h * w, d)
    if num == total:
        for rows, found in _over(patcher, whole, images, (), 'remember'):
            bank.reshape(len(images), h * w, d)[rows] = found
        return bank, np.arange(total)
    key_projection, key_start = jax.random.split(jax.random.key(seed))
    matrix = random_projection(key_projection, d, projection) if 0 < projection < d else None
    small = _aligned((len(images), h * w, d if matrix is None else projection))
    project = whole if matrix is None else lambda *args: product(whole(*args[:2]), args[2])
    args = () if matrix is None else (matrix,)
    for rows, found in _over(patcher, project, images, args, 'project'):
        small[rows] = found
    shared = jax.device_put(small.reshape(total, -1), jax.local_devices()[0], may_alias=True)
    chosen = np.asarray(greedy_coreset(key_start, shared, num))
    del small, shared
    # Only images that have a chosen patch are looked at again.
    image, patch = np.divmod(chosen, h * w)
    for rows, found in _over(patcher, whole, images, (), 'remember', np.unique(image)):
        for row, patches in zip(rows, found, strict=True):
            here = np.flatnonzero(image == row)
            bank[here] = patches[patch[here]]
    return bank, chosen


def _aligned(shape: tuple[int, ...]) -> Array:
    """Uninitialised float32, where XLA on a CPU takes it over without a copy (64 bytes)."""
    room = np.empty(4 * math.prod(shape) + 64, np.uint8)
    start = -room.ctypes.data % 64
    return room[start : start + 4 * math.prod(shape)].view(np.float32).reshape(shape)


def nearest_patches(bank: Array, patches: Array, k: int = 1) -> tuple[Array, Array]:
    """The k nearest of the bank [K, D] to patches [..., D], for use inside jit.

    Returns:
      squared distances and rows of the bank, both [..., k] (see `ops.neighbours.nearest`).
    """
    dist, index = nearest(patches.reshape(-1, patches.shape[-1]), bank, k)
    shape = (*patches.shape[:-1], k)
    return dist.reshape(shape), index.reshape(shape)


def residuals(patcher: Patcher, bank: Array, images: Array) -> Array:
    """Residuals of patches: each minus its nearest normal one, phi_p(x) - m(p), [N, h, w, D].

    A patch that is in the bank has residual 0.

    Args:
      bank: [K, D] as from `fit`. images: [N, H, W, C] uint8.
    """

    def of(params, x, bank):
        patches = patcher.apply(params, x)
        return patches - bank[nearest_patches(bank, patches)[1][..., 0]]

    return over_images(patcher, of, images, bank, what='compare')


def anomaly_maps(patcher: Patcher, bank: Array, images: Array, k: int = 1) -> Array:
    """Distance of every patch to its k nearest normal ones, the mean over them: [N, h, w]."""

    def of(params, x, bank):
        return jnp.sqrt(nearest_patches(bank, patcher.apply(params, x), k)[0]).mean(-1)

    return over_images(patcher, of, images, bank, what='compare')


def over_images(
    patcher: Patcher, function: Callable, images: Any, *args: Array, what: str = ''
) -> Any:
    """function(params, images, *args) -> arrays [N, ...], a few images at a time.

    Args:
      function: jittable and image by image. images: [N, H, W, C], or a tree of such arrays.
      args: what else it needs, whole on every device.
      what: the verb of the progress bar.
    """
    result: Any = None
    num = len(jax.tree.leaves(images)[0])
    for rows, found in _over(patcher, function, images, args, what):
        if result is None:
            full = lambda a: np.empty((num, *a.shape[1:]), a.dtype)
            result = jax.tree.map(full, found)
        for whole, part in zip(*map(jax.tree.leaves, (result, found)), strict=True):
            whole[rows] = part
    return result


def _over(patcher: Patcher, function: Callable, images: Any, args: tuple, what: str, rows=None):
    """Rows and results of chunks of images (those of `rows`, or all), split over the devices."""
    size = CHUNK_CPU if on_cpu() else CHUNK
    num = len(jax.tree.leaves(images)[0] if rows is None else rows)
    with bar(total=num, desc=f'{what} images') as shown:
        for own, found in stream_rows(
            function, patcher.params, images, *args, size=size, rows=rows
        ):
            yield own, found
            shown.update(len(own))
