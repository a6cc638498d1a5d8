"""Tiny sets for tests: every class is a random prototype, every item the prototype plus noise."""

import math

import numpy as np
from ml_collections import ConfigDict

from anyshot_jax.data.splits import ROLES, check_turns
from anyshot_jax.types import Data, InputError, from_arrays

DEFAULTS = {
    'kind': 'images',  # images | features
    'num_classes': (12, 6, 6),  # of train, val, test
    'per_class': (20, 20),  # items a class: from, to (drawn for each class)
    'size': 28,  # height and width of images
    'channels': 1,
    'dim': 16,  # of features
    'noise': 0.2,  # standard deviation; the prototypes' is 1
    'seed': 0,
    'turns': 1,
    'turns_eval': 1,
}
MAX_NUMBERS = 500_000_000  # pixels or features of all items, each of 8 bytes while they are made
NAME = 100  # numbers that take as much as a class's name


def load(config: ConfigDict) -> Data:
    """Data of uint8 images [N, H, W, C] (128 +- 40 a unit) or float32 features [N, D].

    Raises:
      InputError: names the field that can't be used.
    """
    low, high = config.per_class if len(config.per_class) == 2 else (0, 0)
    if not 1 <= low <= high:
        raise InputError(f'config.data.per_class = {config.per_class}: need (from, to), >= 1')
    if len(config.num_classes) != 3 or min(config.num_classes) < 1:
        raise InputError(f'config.data.num_classes = {config.num_classes}: need three counts >= 1')
    if config.kind not in ('images', 'features'):
        raise InputError(f"config.data.kind = {config.kind!r}: need 'images' or 'features'")
    images = config.kind == 'images'
    shape = (config.size, config.size, config.channels) if images else (config.dim,)
    if min(shape) < 1:
        raise InputError(f'config.data: items of shape {shape} are empty')
    numbers = sum(config.num_classes) * (1 + high) * max(math.prod(shape), NAME)
    if numbers > MAX_NUMBERS:
        raise InputError(
            f'config.data: num_classes = {config.num_classes} with per_class = {config.per_class} '
            f'items of shape {shape} are {numbers:,} numbers, more than {MAX_NUMBERS:,}'
        )
    rng = np.random.default_rng(config.seed)
    roles = {}
    for role, num in zip(ROLES, config.num_classes, strict=True):
        label = np.repeat(np.arange(num), rng.integers(low, high + 1, num))
        prototype = rng.normal(size=(num, *shape))
        x = prototype[label] + config.noise * rng.normal(size=(len(label), *shape))
        x = np.clip(128 + 40 * x, 0, 255).astype(np.uint8) if images else x.astype(np.float32)
        turns = check_turns(config.turns if role == 'train' else config.turns_eval)
        names = tuple(f'{role} class {c}' for c in range(num))
        roles[role] = from_arrays(x, label, names, turns=turns)
    return Data(roles)
