"""Class means from words by ridge regression, and items around them as seen classes scatter.

The baseline of every generator. An item is what ridge regression predicts for its class's words
(`synthesis.predict_means`) plus the deviation of some training item from its own class's mean.
"""

import jax
import jax.numpy as jnp

from anyshot_jax.ops.prototype import class_means
from anyshot_jax.stages.synthesis import FIELDS, predict_means, settings, synthesiser
from anyshot_jax.types import InputError, TrainState

REPORT = 'anyshot'
DEFAULTS = {**FIELDS, 'noise': 1.0}


def build(config, data):
    """Class means by ridge regression from descriptions.

    Args:
      config: of a run. data: features with class vectors (config.describe).
    Returns:
      The Method. Its extra: 'choice', see `stages/left_out.py`.
    Raises:
      InputError: penalty or noise out of range, or as `synthesis.check`.
    """
    fields = config.method
    if fields.penalty <= 0 or fields.noise < 0:
        raise InputError('config.method.penalty must be > 0 and config.method.noise >= 0')

    def init(key, data):
        extra = {'choice': settings(config, data)}
        return TrainState(jnp.zeros((), jnp.int32), {}, (), extra)

    def centres(state, data, key, dataset):
        choice = state.extra['choice']
        return predict_means(data, dataset, choice.colours, choice.penalty)

    def synthesise(state, data, key, dataset, count):
        train = data.roles['train']
        around = train.x - class_means(train.x, train.label, len(train.count))[train.label]
        row = jax.random.randint(key, (len(dataset.count), count), 0, len(around))
        centre = centres(state, data, key, dataset)
        return centre[:, None] + fields.noise * around[row]

    return synthesiser(config, data, synthesise=synthesise, centres=centres, init=init)
