"""From what a loader gives to what a method gets: encoders' features, words, residuals."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

from ml_collections import ConfigDict

from anyshot_jax import config as configs
from anyshot_jax.config import under
from anyshot_jax.defects import residual
from anyshot_jax.encoders import describe, embedding
from anyshot_jax.episodes import fitting
from anyshot_jax.episodes.sampling import expand_turns
from anyshot_jax.training import processes
from anyshot_jax.types import Array, Data, Dataset, InputError, nearest


class Step(NamedTuple):
    """Preparation of the data that a field of the config asks for."""

    field: str
    function: Callable  # (config, data, exported) -> data
    hides_images: bool  # the report then needs the images beside the items


def load(config: ConfigDict, exported: Mapping | None) -> tuple[ConfigDict, Data, dict[str, Array]]:
    """The data of a run, on the host.

    Args:
      exported: stage -> what it exported, of the earlier stages.
    Returns:
      The config, its tasks fitted to the data if it says so; the data; and what `report.write`
      shows in place of features: images of the items.
    Raises:
      InputError: it can't be loaded, or not be made into what the config asks for.
    """
    data = load_roles(config)
    steps = [step for step in STEPS if _value(config, step.field)]
    for step in steps:
        if data.functions:
            value = _value(config, step.field)
            raise InputError(
                f'config.{step.field}={value!r} needs classes, config.data has functions'
            )
    shown = {}
    if any(step.hides_images for step in steps):
        roles = {'images': 'test', 'web': 'web'}
        shown = {to: expand_turns(data.roles[r]).x for to, r in roles.items() if r in data.roles}
    for step in steps:
        data = step.function(config, data, exported)
    if config.fit_tasks:
        config, line = fitting.that_fit(config, data)
        if line:
            processes.say(line)
    return config, dataclasses.replace(data, stages=exported or {}), shown


def load_roles(config: ConfigDict) -> Data:
    """Loads the data of a config.

    Raises:
      InputError: as the loader, or one of the user's own breaks its contract.
    """
    name = config.data.name
    data = configs.find('data', name).load(config.data)
    if not isinstance(data, Data):
        raise InputError(
            f'{name}.load(config) must return anyshot_jax.types.Data, such as '
            f"Data({{'train': from_arrays(x, label), 'test': ...}}), got {type(data).__name__}"
        )
    for role, dataset in data.roles.items():
        if not isinstance(dataset, Dataset):
            raise InputError(
                f'{name}.load(config): the role {role!r} must be a Dataset, as '
                f'anyshot_jax.types.from_arrays makes it, got {type(dataset).__name__}'
            )
    if not data.roles and not data.functions:
        raise InputError(f'{name}.load(config) gives no role: train, val and test are usual')
    return data


def _value(config: ConfigDict, field: str):
    section, _, name = field.rpartition('.')
    return (config[section] if section else config)[name]


def _with_features(data, stage: str, exported):
    """The same classes, each role's items replaced by the features a stage exported for them."""
    if stage not in (exported or {}):
        hint = nearest(stage, exported or ())
        raise InputError(f'config.features_from={stage!r} is no earlier stage{hint}')
    return Data(
        {
            role: dataclasses.replace(expand_turns(dataset), x=exported[stage][role], parts=())
            for role, dataset in data.roles.items()
        }
    )


def _embedded(config, data, exported):
    dtype, parts = config.encoder_dtype, config.encoder_parts
    names = {'dtype': 'config.encoder_dtype', 'parts': 'config.encoder_parts'}
    with under('config', which='config.encoder', **names):
        return embedding.embed(data, config.encoder, dtype=dtype, parts=parts)


# In this order.
STEPS = (
    Step('features_from', lambda c, data, e: _with_features(data, c.features_from, e), True),
    Step(
        'describe.by',
        lambda c, data, e: describe.describe(data, c.describe.by, c.describe.templates),
        False,
    ),
    Step('describe.colours', lambda c, data, e: describe.name_colours(data), False),
    Step('encoder', _embedded, True),
    Step('residual.encoder', lambda c, data, e: residual.embed(data, c.residual, c.seed), True),
)
