"""Training set of weak-shot learning: images of several roles, their labels and weights."""

from typing import NamedTuple

import jax.numpy as jnp

from anyshot_jax.stages.handover import exported
from anyshot_jax.types import Array, InputError


class Training(NamedTuple):
    """Training set: N items, C classes."""

    weight: Array  # [N]
    label: Array  # [N]
    offset: Array  # [C]
    count: Array  # [C]


def training(fields, data, roles) -> Training:
    """Labels, places and weights of the roles' items and classes, one role after another."""
    label, offset, count, weight, rows, classes = [], [], [], [], 0, 0
    for role in roles:
        d = data.roles[role]
        label.append(d.label + classes)
        offset.append(d.offset + rows)
        count.append(d.count)
        weight.append(web_weights(fields, data) if role == 'web' else jnp.ones(len(d.label)))
        rows, classes = rows + len(d.label), classes + len(d.count)
    items = Training(*map(jnp.concatenate, (weight, label, offset, count)))
    if fields.balance == 'loss':
        even = items.count.mean() / items.count
        items = items._replace(weight=items.weight * even[items.label])
    return items


def web_weights(fields, data) -> Array:
    """[N] of the web images.

    Raises:
      InputError: weights that don't belong to these images, or truth that isn't known.
    """
    web = data.roles['web']
    if not fields.weights_from:
        return jnp.ones(len(web.label))
    if fields.weights_from == 'truth':
        if web.clean is None:
            raise InputError(
                "config.method.weights_from='truth' needs to know which web labels are right: only "
                "config.data.name='noisy' does"
            )
        return web.clean.astype(jnp.float32)
    weight = exported(data, fields.weights_from, 'weights_from').get('weight')
    if weight is None or len(weight) != len(web.label):
        raise InputError(
            f'config.method.weights_from={fields.weights_from!r} holds no weights of these '
            f'{len(web.label)} web images: name a stage of weigh with the same config.data'
        )
    return jnp.asarray(weight, jnp.float32)


def take(data, roles, row: Array) -> Array:
    """Item number `row` of the roles' items one after another, without joining them."""
    x = data.roles[roles[-1]].x
    if len(roles) == 1:
        return x[row]
    first = data.roles[roles[0]].x
    inside = row < len(first)
    return jnp.where(inside, first[jnp.minimum(row, len(first) - 1)],
                     x[jnp.maximum(row - len(first), 0)])  # fmt: skip
