"""Episodes of a config: whether the data can give them, and the sampler of those to train on."""

import dataclasses
from collections.abc import Callable, Collection

import jax
from ml_collections import ConfigDict

from anyshot_jax.episodes import augment, drawable, retrieval, sampling
from anyshot_jax.types import Array, Data, InputError


def check_episodes(
    config: ConfigDict,
    data: Data,
    *,
    trains: bool,
    batch_norms: Collection[str] = ('inductive', 'transductive'),
    skip_small: bool = False,
    zero_shot: bool = False,
) -> None:
    """Refuses, before any work, episodes that the data can't give and fields that don't fit.

    Args:
      trains: the method has a loss. Others: as for `episodic`.
    Raises:
      InputError: names the role or field.
    """
    batch_norm = config.method.get('batch_norm', 'inductive')
    if batch_norm not in batch_norms:
        raise InputError(
            f'config.method.batch_norm must be {" or ".join(batch_norms)}, got {batch_norm!r}'
        )
    if config.num_steps:
        if not trains:
            raise InputError(f'{config.method.name} has nothing to train: set config.num_steps=0')
        train = data
        if 'train' in data.roles:
            classes = training_classes(config, data, skip_small)(data)
            train = dataclasses.replace(data, roles={**data.roles, 'train': classes})
        drawable.check(train, 'train', **config.train)
    for role in ('val', 'test') if config.num_steps else ('test',):
        if config.eval.retrieval:
            retrieval.check(data, role)
        for ways, shots in config.eval.tasks:
            for within in ('', config.eval.within):
                least = max(shots, 1) if zero_shot else shots
                task = {'ways': ways, 'shots': least, 'queries': config.eval.queries}
                drawable.check(data, role, **task, within=within)
    if any(config.augment.values()) and some_items(data).ndim != 4:
        raise InputError(
            'config.augment needs images, but the data are feature vectors: set its fields to 0'
        )
    if config.eval.retrieval and batch_norm == 'transductive':
        raise InputError(
            'config.eval.retrieval=True needs features of an item by itself: use '
            "config.method.batch_norm='inductive'"
        )


def training_classes(config: ConfigDict, data: Data, skip_small: bool) -> Callable:
    """The function data -> training dataset; with `skip_small` of its classes with enough items."""
    if not config.num_steps or not skip_small or 'train' not in data.roles:
        return lambda data: data.roles['train']
    least = config.train.shots + config.train.queries
    classes = drawable.with_items(data.roles['train'], 'train', least)
    return lambda data: sampling.restrict(data.roles['train'], classes)


def episode_sampler(config: ConfigDict, classes: Callable) -> Callable:
    """`Method.sample`: (key, data) -> an episode of config.train, augmented by config.augment.

    Args:
      classes: data -> the dataset to draw from.
    """
    train, augmentation = config.train.to_dict(), config.augment.to_dict()

    def sample(key, data):
        episode = sampling.sample_episode(key, classes(data), **train)
        if not any(augmentation.values()):
            return episode
        keys = jax.random.split(jax.random.fold_in(key, 1))
        x_s, x_q = (
            augment.affine(k, x, **augmentation) for k, x in zip(keys, episode[0:3:2], strict=True)
        )
        return episode._replace(x_s=x_s, x_q=x_q)

    return sample


def some_items(data: Data) -> Array:
    """Items of one of the roles, for their shape."""
    return next(d.x for d in data.roles.values())
