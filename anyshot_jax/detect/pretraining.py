"""A linear map by which types of defects are told better, learnt on synthetic ones.

Synthetic defects of CLASSES types (`data/pseudo/`) on the user's own normal images are described
like real ones (`defect_types.py`). The map is learnt beside the description (`nets/beside.py`) in
tasks of WAYS types, few steps: what tells synthetic types apart is soon not what tells real ones
apart (arXiv 2406.05645). The settings are those of `configs/mvtec_types.py`, with half of its
synthetic defects; in the description it counts half (`defect_types.LEARNT`).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from anyshot_jax.data.pseudo import classes
from anyshot_jax.detect import synthetic
from anyshot_jax.detect.scores import Looks
from anyshot_jax.detect.seeing import Eye
from anyshot_jax.nets.beside import Beside
from anyshot_jax.ops.distance import cosine
from anyshot_jax.types import Array

CLASSES, PER_CLASS = 20, 30
WAYS, SHOTS, QUERIES = 10, 2, 5
TASKS, STEPS, RATE = 4, 100, 1e-4  # of a step, steps, learning rate of Adam
TEMPERATURE = 0.1  # of the cosines


def kernel(
    eye: Eye,
    looks: Looks,
    items: Sequence[Any],
    product: Sequence[str] | str | None,
    describe: Callable[[list[Array], list[str] | None], Array],
    seed: int,
) -> np.ndarray:
    """[D, E] float32, learnt on synthetic defects on normal images.

    Args:
      items: the normal images. product: of each, or of all.
      describe: (images [S, S, 3] uint8, the product of each) -> [N, D] of length 1.
    """
    rows = classes.source_rows(len(items), PER_CLASS, seed)
    sources = synthetic.squares(looks, items, rows, eye.cells, seed)
    made = synthetic.defects(sources, looks, CLASSES, seed)
    of = None
    if product is not None:
        told = [product] * len(items) if isinstance(product, str) else [str(p) for p in product]
        of = [told[rows[i]] for i in np.asarray(made.group)]  # the source that each is made on
    z = describe(list(made.x), of)
    return np.asarray(trained(z.reshape(CLASSES, PER_CLASS, -1), seed))


@partial(jax.jit, static_argnames='seed')
def trained(z: Array, seed: int) -> jax.Array:
    """The map [D, E] after STEPS steps on descriptions z [C, N, D] of synthetic defects.

    C >= WAYS, N >= SHOTS + QUERIES.
    """
    net, tx = Beside(), optax.adam(RATE)
    keys = jax.random.split(jax.random.key(seed))
    y = jnp.broadcast_to(jnp.arange(WAYS)[:, None], (WAYS, QUERIES))

    def loss(params, key):
        of_types, of_items = jax.random.split(key)
        ways = jax.random.permutation(of_types, len(z))[:WAYS]
        order = lambda key: jax.random.permutation(key, z.shape[1])[: SHOTS + QUERIES]
        rows = jax.vmap(order)(jax.random.split(of_items, WAYS))
        x = net.apply({'params': params}, z[ways[:, None], rows], train=True)
        shots, queries = x[:, :SHOTS], x[:, SHOTS:]
        logits = cosine(queries.reshape(WAYS * QUERIES, -1), shots.mean(1)) / TEMPERATURE
        return optax.softmax_cross_entropy_with_integer_labels(logits, y.reshape(-1)).mean()

    def step(carry, key):
        params, state = carry
        of_tasks = jax.random.split(key, TASKS)
        grads = jax.grad(lambda p: jax.vmap(loss, (None, 0))(p, of_tasks).mean())(params)
        updates, state = tx.update(grads, state)
        return (optax.apply_updates(params, updates), state), None

    params = net.init(keys[0], z[0], train=False)['params']
    (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), jax.random.split(keys[1], STEPS))
    return params['kernel']
