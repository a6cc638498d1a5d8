"""Draws of support and queries of real defect types, which share no group, and their accuracies."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from anyshot_jax.episodes import sampling
from anyshot_jax.runtime.devices import map_over_devices


def askable(dataset, shots: int) -> tuple[int, ...]:
    """The types with more groups than `shots`, so that one is left to ask for."""
    label, group = np.asarray(dataset.label), np.asarray(dataset.group)
    types = range(len(dataset.names))
    return tuple(c for c in types if len(np.unique(group[label == c])) > shots)


def real_types(
    answers: Callable, adapt: Callable, state, data, key, *, shots, most, types, draws, devices
):
    """Draws of support and queries of the real types, as many as `draws`.

    Args:
      answers: (params, extra, x_s, y_s, x_q, ways) -> scores [Q, W].
      adapt: (state, x_s, y_s, ways) -> params, fine-tuned on the shots or as they are.
      data: its role test, and `averaged` if its mean images stand for the types. types: their ids.
      most: shots of the largest task; smaller ones take the first of them.
    Returns:
      Shares of queries classified right, over all (micro) and over types (macro), [draws] each; the
      support's rows [draws, W, S]; the type that each item is called [draws, N], not asked: -1.
    """
    ways, chosen = len(types), jnp.array(types)
    about = jnp.zeros(len(data.roles['test'].names), bool).at[chosen].set(True)
    y = jnp.repeat(jnp.arange(ways), shots)

    def one(i, state, data, key):
        dataset, averaged = data.roles['test'], data.averaged
        if not averaged:
            support = sampling.draw_support(jax.random.fold_in(key, i), dataset, most)
        else:
            support = averaged['support'][i]
        query = sampling.queries_apart(dataset, support[:, :shots], about)[:, -1]
        support = support[chosen, :shots]
        x = dataset.x[support.reshape(-1)]
        params = adapt(state, x, y, ways) if shots > 1 else state.params
        stand_for = (x, y)
        if averaged:
            stand_for = averaged[f'{shots}-shot'][i][chosen], jnp.arange(ways)
        scores = answers(params, state.extra, *stand_for, dataset.x, ways)
        answer = chosen[jnp.argmax(scores, -1)]
        micro, macro = accuracies_of(answer, query, dataset.label, chosen)
        return micro, macro, support, jnp.where(query, answer, -1)

    return map_over_devices(one, draws, devices, state, data, key)


def accuracies_of(answer, query, label, types) -> tuple:
    """Micro and macro accuracy of answers [N] for the items `query` [N] bool, over types [W]."""
    right = (answer == label) & query
    of_type = label[None] == types[:, None]
    num = (of_type & query[None]).sum(1)
    share = (of_type & right[None]).sum(1) / jnp.maximum(num, 1)
    macro = jnp.sum(jnp.where(num > 0, share, 0)) / jnp.sum(num > 0)
    return right.sum() / query.sum(), macro
