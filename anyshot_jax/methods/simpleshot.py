"""SimpleShot: the nearest class mean of frozen features, centred and normalised.

Wang et al., "SimpleShot: revisiting nearest-neighbor classification for few-shot learning", 2019.
`normalise`: 'none' (their UN), 'l2' (L2N), or 'cl2' (CL2N: the mean over the training classes'
items is subtracted first). Nothing is learnt: config.num_steps is 0.
"""

import jax.numpy as jnp

from anyshot_jax.config import check_choices
from anyshot_jax.episodes.episodic import episodic
from anyshot_jax.ops.distance import squared_euclidean
from anyshot_jax.ops.prototype import class_means

DEFAULTS = {
    'normalise': 'cl2',
    'power': 1.0,  # of every feature, its sign kept, before that; 0.5 suits features after ReLU
}
WAYS = ('none', 'l2', 'cl2')


def build(config, data):
    """Nearest class mean of features.

    Args:
      config: of a run. data: with the roles that episodes are drawn from.
    Returns:
      The Method. Its extra: 'mean' [D] of the training items with normalise='cl2'.
    Raises:
      InputError: a field that does not fit, or data that cannot give the episodes.
    """
    normalise = config.method.normalise
    check_choices(config.method, {'normalise': WAYS})

    def flat(x):
        scale = 255 if x.dtype == jnp.uint8 else 1
        z = x.reshape(x.shape[0], -1).astype(jnp.float32) / scale
        return z if config.method.power == 1 else jnp.sign(z) * jnp.abs(z) ** config.method.power

    def init(key, x):
        return {}, {}

    def init_from(data):
        return {'mean': flat(data.roles['train'].x).mean(0)} if normalise == 'cl2' else {}

    def embed(params, extra, x):
        z = flat(x)
        if normalise == 'cl2':
            z = z - extra['mean'][None]
        if normalise != 'none':
            z = z / jnp.maximum(jnp.linalg.norm(z, axis=-1, keepdims=True), 1e-12)
        return z

    def score(params, extra, episode):
        means = class_means(episode.x_s, episode.y_s, ways=episode.class_id.shape[0])
        return -squared_euclidean(episode.x_q, means)

    def similarity(params, extra, a, b):
        return -squared_euclidean(a, b)

    method = episodic(config, data, init=init, embed=embed, score=score, similarity=similarity)
    return method._replace(
        init=lambda key, data: method.init(key, data).replace(extra=init_from(data))
    )
