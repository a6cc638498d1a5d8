"""Patches of a frozen encoder, and squares of images compared with remembered ones."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import islice
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from anyshot_jax.defects import memory_bank
from anyshot_jax.defects.residual import pooled, weighted_mean
from anyshot_jax.detect import objects, views
from anyshot_jax.detect.views import View
from anyshot_jax.encoders import ImageEncoder
from anyshot_jax.ops.distance import unit
from anyshot_jax.ops.neighbours import nearest_of
from anyshot_jax.ops.patches import upsample
from anyshot_jax.ops.product import product
from anyshot_jax.target import on_cpu
from anyshot_jax.types import Array, InputError

LAYERS = ('stride16', 'stride32')  # of a convolutional net, the maps that patches are made of
NET_LAYERS = ('stride8', *LAYERS)  # and those of a `DefectNet`
LIFT = 4.0  # deviations below what is usual at which the net has nothing to say
CHUNK, CHUNK_CPU = 32, 4  # squares that pass the encoder together
SHARPNESS = 16.0  # power of the distances that weigh a peak's patches, as config.residual has it


class DefectNet(NamedTuple):
    """A net that has learnt synthetic defects, see `defect_net.py`."""

    layers: tuple[tuple[Array, Array], ...]  # kernels [E, F] and biases [1, F], ReLU between them
    mean: Array  # [E] of normal patches
    deviation: Array  # [E]
    far: float  # deviation of normal patches' distances,
    usual: float  # mean of what the net says of them,
    spread: float  # and its deviation

    def logits(self, fine: Array) -> jax.Array:
        """[...], above 0 where the net takes a patch [..., E] for one of a defect."""
        x = (fine.reshape(-1, fine.shape[-1]) - self.mean[None]) / self.deviation[None]
        return forward(self.layers, x).reshape(fine.shape[:-1])

    def opinion(self, fine: Array) -> jax.Array:
        """[...] >= 0: how much more than usual, and that is LIFT, patches look like a defect."""
        return jnp.maximum((self.logits(fine) - self.usual) / self.spread + LIFT, 0)


def forward(layers, x: Array) -> jax.Array:
    """The net's outputs [N, 1] of x [N, E]."""
    for kernel, bias in layers[:-1]:
        x = jax.nn.relu(product(x, kernel) + bias)
    kernel, bias = layers[-1]
    return product(x, kernel) + bias


class Seen(NamedTuple):
    """Maps that an encoder makes of n squares."""

    patches: Array  # [n, h, w, D]
    head: Array  # [n, h', w', E] its last map
    fine: Array | None  # [n, H, W, F] patches of a `DefectNet`, H and W multiples of h and w


class Eye(NamedTuple):
    """An encoder for squares of one size, and its compiled functions."""

    patcher: memory_bank.Patcher
    side: int
    cells: int  # of a side of a square: h, or H where there is a net
    times: int  # of them to a remembered patch's side
    see: Callable  # (params, x [n, S, S, 3]) -> Seen
    valued: Callable  # (dist [n, h, w], Seen, net) -> [n, H, W]
    compare: Callable  # (Seen, neighbours.Prepared, weight [n, H, W], net) -> Contrast
    params: Any
    net: DefectNet | None = None

    @property
    def dim(self) -> int:
        return self.patcher.shape[-1]


class Contrast(NamedTuple):
    """A square beside what is remembered."""

    dist: Array  # [n, H, W] distance of every patch to the nearest that may be found, times weight
    value: Array  # [n, H, W] that, or in deviations and with what the net says
    row: Array  # [n, H, W] int32 which patch is nearest
    peak: Array  # [n, D] the residual where the distances are large
    head: Array  # [n, E] the encoder's last map there, square roots
    whole: Array  # [n, E] and its mean over the square


@cache
def eye(
    encoder: str, layers: tuple[str, ...], side: int, cosine: bool = False, learnt: bool = False
) -> Eye:
    """Loaded once a process; its functions compile for one square and for CHUNK of them.

    Args:
      layers: maps that patches are made of; (): strides 16 and 32, or a transformer's patches.
      cosine: patches are single places of length 1, whose distances grow with their angle, in
        place of means over 3x3 places. Damm et al., "AnomalyDINO", WACV 2025.
      learnt: patches of a `DefectNet` are seen, too.
    Raises:
      InputError: as `memory_bank.load_patcher`.
    """
    layers = layers or usual_layers(encoder)
    patcher = memory_bank.load_patcher(encoder, layers, size=side)
    fine = memory_bank.load_patcher(encoder, net_layers(encoder), size=side) if learnt else None
    cells = max(patcher.shape[0], fine.shape[0] if fine else 0)
    times = cells // patcher.shape[0]
    if times * patcher.shape[0] != cells or (fine and fine.shape[0] != cells):
        raise InputError(f'learnt=True: layers={layers} of {encoder} are finer than its net sees')

    def patches_of(maps):
        if not cosine:
            return patcher.patches(maps)
        shape = max(maps[name].shape[1:3] for name in layers)
        return unit(jnp.concatenate([upsample(maps[name], shape) for name in layers], -1))

    @jax.jit
    def see(params, x):
        maps = patcher.maps(params, x)
        last = maps['head'] if 'head' in maps else maps[layers[-1]]
        return Seen(patches_of(maps), last, fine and fine.patches(maps))

    wide = lambda a: jnp.repeat(jnp.repeat(a, times, 1), times, 2)

    def valued(dist, seen, net):
        return wide(dist) if net is None else wide(dist) / net.far + net.opinion(seen.fine)

    @jax.jit
    def compare(seen, bank, weight, net):
        patches, head = seen.patches, seen.head
        shape = patches.shape
        square, row = nearest_of(patches.reshape(-1, shape[-1]), bank)
        residual = patches - bank.bank[row[:, 0]].reshape(shape)
        dist = jnp.sqrt(square).reshape(shape[:3])
        counted = dist * pooled(weight, shape[1:3])
        at_peak = weighted_mean(head, pooled(counted, head.shape[1:3]), SHARPNESS)
        roots = lambda z: jnp.sqrt(jnp.maximum(z, 0))
        return Contrast(
            wide(dist) * weight,
            valued(dist, seen, net) * weight,
            wide(row.reshape(shape[:3])),
            weighted_mean(residual, counted, SHARPNESS),
            roots(at_peak),
            roots(head.mean((1, 2))),
        )

    params = jax.device_put(patcher.params)
    return Eye(patcher, side, cells, times, see, valued, compare, params)


def net_layers(encoder: str) -> tuple[str, ...]:
    """The maps of an encoder that the patches of a `DefectNet` are made of."""
    maps = _maps_of(encoder)
    return tuple(name for name in NET_LAYERS if name in maps) or usual_layers(encoder)


def _maps_of(encoder: str) -> dict[str, Any]:
    net = memory_bank.load(encoder)
    if not isinstance(net, ImageEncoder):
        return {}
    x = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.uint8)
    return jax.eval_shape(lambda params, x: net.maps(params, net.preprocess(x)), net.params, x)


def usual_layers(encoder: str) -> tuple[str, ...]:
    """The maps of an encoder that patches are made of where none are named.

    Raises:
      InputError: it has no maps, or as `encoders.load`.
    """
    maps = _maps_of(encoder)
    wanted = tuple(name for name in LAYERS if name in maps)
    strides = sorted(name for name in maps if name.startswith('stride'))
    if not strides:
        raise InputError(f'encoder={encoder!r} has no maps of places in an image')
    return wanted if len(wanted) == len(LAYERS) else (strides[-1],)


class Part(NamedTuple):
    """A square of an image, with what its encoder makes of it."""

    image: int  # its number
    size: tuple[int, int]  # its width and height in pixels
    grid: tuple[int, int]  # rows and columns of its map
    square: views.Square
    weight: Array  # [h, w] float32: 1 where a cell counts


def parts(
    images: Iterable[tuple[int, Image.Image]],
    view: View,
    cells: int,
    how: str,
    counts_of: Callable[[int, tuple[int, int], tuple[int, int]], Array] | None = None,
) -> Iterator[Part]:
    """The squares of images, one at a time.

    Args:
      how: how the object is found whose cells count, of `objects.WAYS`.
      counts_of: (number, size, grid) -> [rows, columns] 1 where a cell counts; none: all do.
    """
    for number, whole in images:
        image = whole.crop(views.looked_at(whole.size, view))
        grid = views.grid(image, view, cells)
        counts = objects.in_pixels(image, grid, how)
        if counts_of:
            counts = counts * counts_of(number, whole.size, grid)
        for square in views.squares(image, view, cells):
            weight = np.zeros((cells, cells), np.float32)
            weight[square.own] = counts[square.at]
            yield Part(number, whole.size, grid, square, weight)


def encode(eye: Eye, squares: Iterable[Part], how: str) -> Iterator[tuple[list[Part], Seen]]:
    """(parts, what the encoder makes of them, on the device), a few at a time.

    Two shapes only are ever compiled: rows after the parts' repeat them.

    Args:
      how: as `parts` takes it.
    """
    size = CHUNK_CPU if on_cpu() else CHUNK
    squares = iter(squares)
    while some := list(islice(squares, size)):
        batches = [some] if len(some) > size // 2 else [[part] for part in some]
        for batch in batches:
            rows = np.arange(size if len(batch) > 1 else 1) % len(batch)
            seen = eye.see(eye.params, np.stack([batch[i].square.x for i in rows]))
            if how == 'pca':
                found = map(objects.in_patches, np.asarray(seen.patches))
                cell = np.ones((eye.times, eye.times), np.float32)
                batch = [
                    p._replace(weight=p.weight * np.kron(o, cell))
                    for p, o in zip(batch, found, strict=False)
                ]
            yield batch, seen


def weights(batch: Sequence[Part], num: int) -> np.ndarray:
    """[num, h, w] of a batch that was filled up to `num`."""
    return np.stack([batch[i % len(batch)].weight for i in range(num)])
