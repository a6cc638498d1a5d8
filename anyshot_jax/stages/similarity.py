"""A learnt similarity as stages hand it on: its nets, its export, and similarities in blocks."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from anyshot_jax.config import build_net, check_code
from anyshot_jax.episodes.episodic import EMBED_CHUNK, forward, init_net
from anyshot_jax.nets.pair_head import PairHead
from anyshot_jax.ops.distance import cosine
from anyshot_jax.runtime.devices import chunks, map_rows
from anyshot_jax.stages.handover import NET, exported, unflatten
from anyshot_jax.types import Array, Data, Dataset, InputError

BLOCK = 1 << 13  # pairs looked at at once
KEPT_BACK = 'kept_back'  # of an export: the base classes that it never learnt from


class Backbone(NamedTuple):
    """The net of config.net, or the identity where there is none."""

    init: Callable  # (key, x [2, ...]) -> (params, stats)
    apply: Callable  # (params, stats, x [..., N, ...], mode) -> (features [..., N, D], stats)


def backbone(net: ConfigDict | Mapping[str, Any], method: str) -> Backbone:
    """The function and the parameters of features, of vectors or images.

    Raises:
      InputError: images without a net, at init; or a net whose features aren't flat.
    """
    fields = net if isinstance(net, ConfigDict) else ConfigDict(dict(net))
    if not fields.name:

        def same(params, stats, x, mode):
            return x.astype(jnp.float32), stats

        def nothing(key, x):
            if x.ndim != 2:
                raise InputError(
                    f'config.method.name={method!r} got items {x.shape[1:]}: set config.encoder, '
                    'or config.net to a net for images'
                )
            return {}, {}

        return Backbone(nothing, same)
    module = build_net(fields)

    def init(key, x):
        params, stats = init_net(module, key, x)
        z = jax.eval_shape(lambda x: forward(module, params, stats, x, mode='inductive')[0], x)
        if z.ndim != 2:
            raise InputError(f'config.method.name={method!r} needs flat features')
        return params, stats

    return Backbone(init, lambda p, s, x, mode: forward(module, p, s, x, mode=mode))


class Similarity(NamedTuple):
    """Similarity of two items, 0..1; parameters are arguments, so that none is baked in."""

    params: Any  # {'params': {'net', 'head'}, 'stats': {'net', 'head'}}, or {}
    features: Callable  # (params, x [N, ...]) -> [N, D]
    pairs: Callable  # (params, a [K, D], b [N, D]) -> [K, N]

    @classmethod
    def of(cls, data: Data, stage: str) -> 'Similarity':
        """Similarity of a `simnet` stage; '' gives the items' cosine, cut off at 0.

        Raises:
          InputError: no such stage, or it exported no similarity.
        """
        if not stage:

            def flat(params, x):
                return x.reshape(len(x), -1).astype(jnp.float32)

            return cls({}, flat, lambda params, a, b: jnp.maximum(cosine(a, b), 0))
        arrays = exported(data, stage, 'simnet_from')
        head_params = unflatten(arrays, 'params/head')
        if NET not in arrays or not head_params:
            raise InputError(f'config.method.simnet_from={stage!r} is no stage of simnet')
        net = json.loads(np.asarray(arrays[NET]).tobytes())
        try:
            check_code(net)
        except InputError as e:
            raise InputError(f'what stage {stage!r} exported: {e}') from e
        body, head = backbone(net, 'simnet'), head_like(head_params)

        def features(p, x):
            return body.apply(p['params']['net'], p['stats']['net'], x, 'inductive')[0]

        def pairs(p, a, b):
            variables = {'params': p['params']['head'], **p['stats']['head']}
            logits, _ = head.apply(variables, a[None], b[None], train=False)
            return jax.nn.softmax(logits[0])[..., 1]

        return cls(learnt(data, stage), features, pairs)


def learnt(data: Data, stage: str) -> dict:
    """The parameters of `Similarity.of(data, stage)`; data may be traced."""
    if not stage:
        return {}
    return {
        part: {which: unflatten(data.stages[stage], f'{part}/{which}') for which in ('net', 'head')}
        for part in ('params', 'stats')
    }


def head_like(params: Mapping[str, Any]) -> PairHead:
    """The head that has these parameters: its widths stand in their shapes."""
    deeper = sorted(name for name in params if name.startswith('dense'))
    widths = [params['pair_kernel'].shape[-1], *(params[n]['kernel'].shape[-1] for n in deeper)]
    return PairHead(tuple(int(w) for w in widths))


def kept_back(num: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """The classes never learnt from, round(share * num) drawn by lot, and the others."""
    order = np.random.default_rng(0).permutation(num)
    kept = round(share * num)
    return np.sort(order[:kept]), np.sort(order[kept:])


def learnt_from(base: Dataset, share: float) -> Dataset:
    """The same items, with places and counts of the classes only that aren't kept back."""
    _, classes = kept_back(len(base.count), share)
    return dataclasses.replace(base, offset=base.offset[classes], count=base.count[classes])


def features_of(sim: Similarity, x: Array) -> Array:
    """[N, D] of items [N, ...], a few at a time: one program, bounded memory."""
    return map_rows(partial(jax.jit(sim.features), sim.params), x, size=EMBED_CHUNK)


def all_pairs(sim: Similarity, z: Array, *, others: Array | None = None) -> np.ndarray:
    """Similarities [N, M] of features z [N, D] in the first place to others [M, D] (or z).

    Rows are looked at in blocks of at most `BLOCK` pairs, so that memory beyond the answer and the
    parameters is that of one block whatever N is: about 4 * BLOCK * widths bytes.
    """
    others = z if others is None else others
    block = jax.jit(sim.pairs)
    values = np.empty((len(z), len(others)), np.float32)
    for num, rows in chunks(len(z), rows_at_once(len(z), len(others))):
        values[rows[:num]] = np.asarray(block(sim.params, z[rows], others))[:num]
    return values


def rows_at_once(num: int, others: int) -> int:
    """Number of the `num` rows of pairs with `others` items that are a block."""
    return max(1, min(BLOCK // max(others, 1), num))


def novel(data: Data, method: str) -> Dataset:
    """The web images.

    Raises:
      InputError: the data have none.
    """
    if not {'web', 'test'} <= set(data.roles):
        raise InputError(
            f'config.method.name={method!r} needs the roles base, web and test: use '
            "config.data.name='weak' or 'noisy'"
        )
    return data.roles['web']
