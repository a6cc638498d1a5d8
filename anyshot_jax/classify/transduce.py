"""All queries of a call answered together (transductive), by class centres that move towards them.

Without the graph of methods/refine.py: its neighbours are those of tasks of a hundred items, and it
locks onto wrong classes where there are many or they are unevenly frequent.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from anyshot_jax.classify import nearest_mean
from anyshot_jax.classify.nearest_mean import Head
from anyshot_jax.ops.graph import centre_groups
from anyshot_jax.ops.prototype import class_centres
from anyshot_jax.types import Array

# The paper's, and the choice of configs/industrial_anyshot.py.
CENTRES = {'rounds': 20, 'step': 0.2, 'sharpness': 10.0}


def transduced(head: Head, x_s: Array, label: Array, z_q: Array) -> Array:
    """[Q, C] probabilities of queries that are taken to be spread evenly over the classes.

    A class without examples is stood for by its mean. Memory grows with Q^2.

    Args:
      x_s: [N, D] features of the support. label: [N]. z_q: [Q, D] in the head's space.
    """
    num = len(head.means)
    empty = np.flatnonzero(np.bincount(label, minlength=num) == 0)
    z_s = np.concatenate([nearest_mean.place(head.space, x_s), head.means[empty]])
    weight = np.eye(num, dtype=np.float32)[np.concatenate([label, empty])]
    plan = np.asarray(_plan(z_s, weight, z_q), np.float64)
    return plan / plan.sum(1, keepdims=True)


@jax.jit
def _plan(z_s, weight, z_q):
    x = jnp.concatenate([z_s, z_q])
    group = jnp.arange(len(x)) >= len(z_s)
    x = centre_groups(x, group.astype(jnp.int32), 2)
    return partial(class_centres, **CENTRES)(x[: len(z_s)], weight, x[len(z_s) :])[1]
