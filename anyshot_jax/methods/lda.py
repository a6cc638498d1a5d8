"""Linear discriminant analysis of frozen features: the nearest class mean once they are whitened.

What the items of a training class differ by says which directions matter little; new classes are
told apart where that scatter has been made the same in all directions (`ops/whitening.py`), on
vectors of length 1. Of an encoder with several parts (config.encoder_parts) every one counts alike.
Its share of colours is left out of that and only handed on, for `ridge` and `generator`: a class
of a few images is not known by its colours, a description may be by nothing else.
Nothing is learnt by steps: config.num_steps is 0.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from anyshot_jax.episodes.episodic import episodic
from anyshot_jax.ops.colour import COLOURS
from anyshot_jax.ops.distance import squared_euclidean, unit
from anyshot_jax.ops.prototype import class_means
from anyshot_jax.ops.whitening import fit_whitening, whiten
from anyshot_jax.types import InputError

DEFAULTS = {
    'shrink': 0.3,  # of the covariance within classes: 0 < shrink <= 1
    'power': 0.5,  # of every feature, its sign kept, before that
}


def fit(x, label, num_classes: int, parts, *, shrink, power: float, colours: int) -> dict:
    """Parameters of `embed`, fitted to the items of training classes.

    Args:
      x: [N, D] features. label: [N]; -1 where an item isn't there. parts: sizes of what makes up
        the D - colours main ones. colours: how many of the last are shares of colours.
    """
    main, rest = _split(x, colours, power)
    there = (label >= 0)[:, None]
    fitted = fit_whitening(main, label, num_classes, parts, shrink)
    scale = rest.std(0, where=there) + 0.05
    return {'main': fitted, 'shift': rest.mean(0, where=there), 'scale': scale}


def embed(fitted: dict, x, parts, *, power: float, colours: int):
    """[N, D]: the main part whitened and its share of colours, each of length 1; see `fit`."""
    main, rest = _split(x, colours, power)
    z = unit(whiten(fitted['main'], main, parts))
    if not colours:
        return z
    rest = unit((rest - fitted['shift'][None]) / fitted['scale'][None])
    return jnp.concatenate([z, rest], axis=1)


def likeness(fitted, x, label, offset, parts, *, shrink, power: float, colours: int):
    """Ratio of cosines to the own class's mean: of items new to the whitening to those it knows.

    A whitening of a few hundred items in thousands of dimensions makes just these very alike; what
    is chosen by them about new items has to take that into account. Every fifth item of a class
    is asked, and the means are of the others.

    Args:
      fitted: to all of x, by `fit`, whose arguments these are. offset: [C] of the classes' rows.

    Returns:
      [] in 0..1; 1 where no class has five items.
    """
    asked = (label >= 0) & ((jnp.arange(len(label)) - offset[label]) % 5 == 4)
    own, rest = label, jnp.where(asked, -1, label)
    num = len(offset)
    how: dict[str, Any] = {'power': power, 'colours': colours}

    def cosine(fitted):
        z = embed(fitted, x, parts, **how)
        z = z[:, : z.shape[1] - colours]
        means = unit(class_means(z, rest, num))
        return jnp.mean(jnp.sum(z * means[own], 1), where=asked)

    ratio = cosine(fit(x, rest, num, parts, shrink=shrink, **how)) / cosine(fitted)
    return jnp.where(asked.any(), jnp.clip(ratio, 0, 1), 1)


def _split(x, colours: int, power: float):
    main, rest = jnp.split(x, [x.shape[1] - colours], axis=1)
    return jnp.sign(main) * jnp.abs(main) ** power, rest


def build(config, data):
    """Nearest class mean in a whitened space.

    Args:
      config: of a run. data: with the roles that episodes are drawn from; train to fit on.
    Returns:
      The Method. Its extra: what `fit` returns.
    Raises:
      InputError: a field that does not fit, or data that cannot give the episodes.
    """
    fields = config.method
    if not 0 < fields.shrink <= 1:
        raise InputError(f'config.method.shrink={fields.shrink} must be > 0 and <= 1')
    colours = len(COLOURS) if 'colours' in config.encoder_parts else 0
    parts = data.roles['train'].parts[: -1 if colours else None] if 'train' in data.roles else ()
    how = {'power': fields.power, 'colours': colours}

    def flat(x):
        scale = 255 if x.dtype == jnp.uint8 else 1
        return x.reshape(x.shape[0], -1).astype(jnp.float32) / scale

    sizes = lambda x: parts or (x.shape[1] - colours,)

    def init(key, x):
        return {}, {}

    def init_from(data):
        train = data.roles['train']
        x, num = flat(train.x), len(train.count)
        return fit(x, train.label, num, sizes(x), shrink=fields.shrink, **how)

    def embed_flat(params, extra, x):
        x = flat(x)
        return embed(extra, x, sizes(x), **how)

    def similarity(params, extra, a, b):
        main = lambda z: z[:, : z.shape[1] - colours]
        return -squared_euclidean(main(a), main(b))

    def score(params, extra, episode):
        means = class_means(episode.x_s, episode.y_s, ways=episode.class_id.shape[0])
        return similarity(params, extra, episode.x_q, means)

    method = episodic(config, data, init=init, embed=embed_flat, score=score, similarity=similarity)

    def export(state, data, key):
        made = method.export(state, data, key)
        if 'train' in data.roles:
            train = data.roles['train']
            x = flat(train.x)
            at = {'parts': sizes(x), 'shrink': fields.shrink, **how}
            made['likeness'] = jax.jit(partial(likeness, **at))(
                state.extra, x, train.label, train.offset
            )
        return made

    return method._replace(
        init=lambda key, data: method.init(key, data).replace(extra=init_from(data)),
        export=export,
    )
