"""A small net beside the memory, which has learnt what synthetic defects look like.

It finds small defects and their outlines better than distances do, those find what no synthetic
defect looks like (`methods/patch_net.py`, whose settings these are). A place's value is its
distance in usual deviations, and what the net says, in usual deviations too.

The net and what is usual come from normal images that the threshold doesn't rest on: a threshold
of images that the net has trained on would promise too much.
"""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from anyshot_jax.data.pseudo import classes
from anyshot_jax.detect import synthetic
from anyshot_jax.detect.memory import squared
from anyshot_jax.detect.scores import Looks
from anyshot_jax.detect.seeing import CHUNK_CPU, DefectNet, Eye, forward
from anyshot_jax.methods.patch_net import covered
from anyshot_jax.types import Array, InputError

CLASSES, SOURCES = 20, 20  # synthetic types, and normal images that they are made on
LEAST = 20  # groups of near copies from which on some can be spared
SPARED = 0.3  # share of a product's groups, that the net learns from or that say what is usual
KEPT = 2  # groups of a product that are not spared, at least: fewer give no threshold
HIDDEN = (256, 256)
STEPS, BATCH, RATE = 200, 8, 1e-3
PATCHES = 32  # of an image: of a defect, of what is around it, and of a normal one


def spared(
    groups: Sequence[Any], product: Sequence[str], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of images that the net learns from, and of those that say what is usual.

    Args:
      groups: [N] of each image, equal for near copies. product: [N], of each of which the same
        share is spared.
    Raises:
      InputError: too few groups, or products of too few.
    """
    names = list(dict.fromkeys(groups))
    if len(names) < LEAST:
        raise InputError(
            f'learnt=True spares some normal images for its net: {len(names)} different ones are '
            f'too few, give {LEAST} or more'
        )
    order = np.random.default_rng(seed).permutation(len(names))
    at = {g: i for i, g in enumerate(names)}
    of = np.array([at[g] for g in groups])
    shown: list[set[str]] = [set() for _ in names]  # the products that a group shows
    for i, name in zip(of, product, strict=True):
        shown[i].add(name)
    count = Counter(name for own in shown for name in own)
    left = {name: max(int(SPARED * n), int(n > KEPT)) for name, n in count.items()}
    some = []
    for i in order:
        if all(left[name] for name in shown[i]):
            some.append(i)
            left.update({name: left[name] - 1 for name in shown[i]})
    if len(some) < int(SPARED * LEAST):
        raise InputError(
            f'learnt=True spares some normal images of each product for its net, {KEPT} of a '
            'product stay: give more of each, or fit without it'
        )
    cut = 2 * len(some) // 3
    rows = [np.flatnonzero(np.isin(of, part)) for part in (some[:cut], some[cut:])]
    return rows[0], rows[1]


def learn(
    eye: Eye,
    looks: Looks,
    items: Sequence[Any],
    groups: Sequence[Any],
    product: Sequence[str],
    seed: int,
) -> tuple[DefectNet, np.ndarray]:
    """The net, and the rows of images that it has seen.

    Args:
      items: the normal images. groups, product: as for `spared`.
    """
    learning, usual = spared(groups, product, seed)
    rows = learning[classes.source_rows(len(learning), SOURCES, seed)]
    sources = synthetic.squares(looks, items, rows, eye.cells, seed)
    others = synthetic.squares(looks, items, usual[:SOURCES], eye.cells, seed)
    made = synthetic.defects(sources, looks, CLASSES, seed)
    inside = np.asarray(covered(np.asarray(made.mask), (eye.cells, eye.cells)))
    rng = np.random.default_rng(seed)
    near, fine = _seen(eye, sources)
    normal = np.stack([_some(x, np.ones(len(x), bool), rng) for x in fine])
    of_defects = []
    for start in range(0, len(made.x), CHUNK_CPU):
        part = slice(start, start + CHUNK_CPU)
        for x, cells in zip(_seen(eye, np.asarray(made.x[part]))[1], inside[part], strict=True):
            cells = cells.reshape(-1)
            of_defects.append((_some(x, cells, rng), _some(x, ~cells, rng)))
    defect, around = (np.stack(a) for a in zip(*of_defects, strict=True))
    mean = normal.mean((0, 1))
    deviation = normal.std((0, 1))
    deviation = np.where(deviation > 1e-6, deviation, 1)
    normal = normal[np.arange(len(defect)) % len(normal)]
    x = (np.stack([defect, around, normal], 1) - mean) / deviation
    layers = jax.tree.map(np.asarray, trained(x, seed))
    net = DefectNet(layers, mean, deviation, 1.0, 0.0, 1.0)
    # What is usual: on images that are neither learnt from nor remembered here.
    bank = near.reshape(-1, near.shape[-1])
    near, fine = _seen(eye, others)
    dist = np.sqrt(squared(near.reshape(-1, near.shape[-1]), bank).min(1))
    logit = np.asarray(net.logits(jnp.asarray(fine)))
    net = net._replace(
        far=max(float(dist.std()), 1e-6),
        usual=float(logit.mean()),
        spread=max(float(logit.std()), 1e-6),
    )
    return net, np.sort(np.concatenate([learning, usual]))


def _seen(eye: Eye, x: Array) -> tuple[np.ndarray, np.ndarray]:
    """Patches [N, h * w, D] of squares, and the net's [N, H * W, E]."""
    found = []
    for start in range(0, len(x), CHUNK_CPU):
        part = x[start : start + CHUNK_CPU]
        rows = np.arange(CHUNK_CPU) % len(part)
        seen = eye.see(eye.params, part[rows])
        found.append([np.asarray(a)[: len(part)] for a in (seen.patches, seen.fine)])
    near, fine = (np.concatenate(a) for a in zip(*found, strict=True))
    flat = lambda a: a.reshape(len(a), -1, a.shape[-1])
    return flat(near), flat(fine)


def _some(x: Array, cells: Array, rng: np.random.Generator) -> Array:
    """[PATCHES, E] of an image's patches x [P, E] where `cells` [P], all of them if there is none.

    Drawn again where there are fewer.
    """
    rows = np.flatnonzero(cells)
    rows = rows if len(rows) else np.arange(len(x))
    return x[rng.choice(rows, PATCHES, replace=len(rows) < PATCHES)]


@partial(jax.jit, static_argnames='seed')
def trained(x: Array, seed: int):
    """Layers of the net after STEPS steps.

    Args:
      x: [N, 3, P, E], patches of each synthetic defect: in it, around it, of a normal image.
    """
    keys = jax.random.split(jax.random.key(seed), len(HIDDEN) + 2)
    sizes = (x.shape[-1], *HIDDEN, 1)
    init = jax.nn.initializers.lecun_normal()
    layers = tuple(
        (init(key, (a, b)), jnp.zeros((1, b)))
        for key, a, b in zip(keys, sizes, sizes[1:], strict=False)
    )
    tx = optax.adam(RATE)
    label = jnp.broadcast_to(jnp.array([1.0, 0, 0])[:, None], x.shape[1:3])
    # A defect counts as much as what is around it; of a normal image all is around.
    weight = jnp.array([1.0, 1, 2])[:, None] / 4 / x.shape[2]

    def loss(layers, rows):
        logit = forward(layers, x[rows].reshape(-1, x.shape[-1])).reshape(BATCH, 3, -1)
        each = optax.sigmoid_binary_cross_entropy(logit, label[None])
        return (each * weight[None]).sum((1, 2)).mean()

    def step(carry, key):
        layers, state = carry
        rows = jax.random.randint(key, (BATCH,), 0, len(x))
        updates, state = tx.update(jax.grad(loss)(layers, rows), state)
        return (optax.apply_updates(layers, updates), state), None

    x = jnp.asarray(x)
    of_steps = jax.random.split(keys[-1], STEPS)
    return jax.lax.scan(step, (layers, tx.init(layers)), of_steps)[0][0]
