"""Linear discriminant analysis of frozen features: the nearest class mean once they are whitened.

What the items of a training class differ by says which directions matter little; new classes are
told apart where that scatter has been made the same in all directions (`ops/whitening.py`), on
vectors of length 1. Of an encoder with several parts (config.encoder_parts) every one counts alike.
Its share of colours is left out of that and only handed on, for `ridge` and `generator`: a class
of a few pictures is not known by its colours, a description may be by nothing else.
Nothing is learnt by steps: config.num_steps is 0.
"""

import jax.numpy as jnp

from anyshot_jax.episodic import episodic
from anyshot_jax.ops.colour import COLOURS
from anyshot_jax.ops.distance import squared_euclidean, unit
from anyshot_jax.ops.prototype import class_means
from anyshot_jax.ops.whitening import fit_whitening, whiten
from anyshot_jax.types import InputError

DEFAULTS = {
    'shrink': 0.3,  # of the covariance within classes: 0 < shrink <= 1
    'power': 0.5,  # of every feature, its sign kept, before that
}


def build(config, data):
    fields = config.method
    if not 0 < fields.shrink <= 1:
        raise InputError(f'config.method.shrink={fields.shrink} must be > 0 and <= 1')
    colours = len(COLOURS) if 'colours' in config.encoder_parts else 0
    parts = data['train'].parts[: -1 if colours else None] if 'train' in data else ()

    def flat(x):
        scale = 255 if x.dtype == jnp.uint8 else 1
        z = x.reshape(x.shape[0], -1).astype(jnp.float32) / scale
        main, rest = jnp.split(z, [z.shape[1] - colours], axis=1)
        return jnp.sign(main) * jnp.abs(main) ** fields.power, rest

    def init(key, x):
        return {}, {}

    def init_from(data):
        train = data['train']
        main, rest = flat(train.x)
        sizes = parts or (main.shape[1],)
        fitted = fit_whitening(main, train.label, len(train.count), sizes, fields.shrink)
        return {'main': fitted, 'shift': rest.mean(0), 'scale': rest.std(0) + 0.05}

    def embed(params, extra, x):
        main, rest = flat(x)
        z = unit(whiten(extra['main'], main, parts or (main.shape[1],)))
        if not colours:
            return z
        rest = unit((rest - extra['shift'][None]) / extra['scale'][None])
        return jnp.concatenate([z, rest], axis=1)

    def similarity(params, extra, a, b):
        main = lambda z: z[:, : z.shape[1] - colours]
        return -squared_euclidean(main(a), main(b))

    def score(params, extra, episode):
        means = class_means(episode.x_s, episode.y_s, ways=episode.class_id.shape[0])
        return similarity(params, extra, episode.x_q, means)

    method = episodic(config, data, init=init, embed=embed, score=score, similarity=similarity)
    return method._replace(
        init=lambda key, data: method.init(key, data).replace(extra=init_from(data))
    )
