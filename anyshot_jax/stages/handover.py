"""Nets and arrays of an earlier stage, by its name."""

import json
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from anyshot_jax.types import Array, Data, InputError, nearest

NET = 'net.json'  # of an export: the bytes of config.net


def exported(data: Data, stage: str, field: str) -> Mapping[str, Array]:
    """The arrays of an earlier stage.

    Raises:
      InputError: there is no such stage; the nearest is named.
    """
    if stage not in data.stages:
        raise InputError(
            f'config.method.{field}={stage!r} is no earlier stage'
            f'{nearest(stage, data.stages) if data.stages else ""}'
        )
    return data.stages[stage]


def flatten(name: str, tree: Any) -> dict[str, Array]:
    """A tree of dictionaries as 'name/a/b' -> array."""
    return {
        '/'.join([name, *(str(k.key) for k in path)]): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def unflatten(arrays: Mapping[str, Array], name: str) -> dict:
    """The tree below `name` of what `flatten` made."""
    tree: dict = {}
    for key, array in arrays.items():
        if key.startswith(f'{name}/'):
            *path, last = key[len(name) + 1 :].split('/')
            branch = tree
            for part in path:
                branch = branch.setdefault(part, {})
            branch[last] = array
    return tree


def export_net(net: ConfigDict, params: Any, stats: Any) -> dict[str, Array]:
    """Plain arrays that `Similarity.of` and `start_from` read, and other programs can.

    Args:
      params, stats: {'net': ..., 'head': ...}, the latter where pairs are judged.
    """
    spec = np.frombuffer(json.dumps(net.to_dict(), sort_keys=True).encode(), np.uint8)
    return {NET: spec, **flatten('params', params), **flatten('stats', stats)}


def start_from(data: Data, stage: str, params: Any, stats: Any) -> tuple[Any, Any]:
    """Parameters and statistics of the net that an earlier stage exported, shaped like these.

    Raises:
      InputError: no such stage, or it exported a net of another shape.
    """
    found = exported(data, stage, 'start_from')
    given = unflatten(found, 'params/net'), unflatten(found, 'stats/net')
    shapes = lambda tree: jax.tree.map(jnp.shape, tree)
    if shapes(given) != shapes((params, stats)):
        raise InputError(
            f'config.method.start_from={stage!r}: that stage trained a net of other shapes; give '
            'both stages the same config.net'
        )
    return given
