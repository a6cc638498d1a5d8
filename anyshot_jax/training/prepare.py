"""From what a loader gives to what a method gets: encoders' features, words, residuals."""

import dataclasses
from collections.abc import Mapping

from ml_collections import ConfigDict

from anyshot_jax import config as configs
from anyshot_jax.defects import residual
from anyshot_jax.encoders import describe, embedding
from anyshot_jax.episodes.sampling import expand_turns
from anyshot_jax.types import Array, Data, InputError

OF_CLASSES = ('features_from', 'encoder', 'describe.by', 'describe.colours', 'residual.encoder')


def load(config: ConfigDict, exported: Mapping | None) -> tuple[Data, dict[str, Array]]:
    """The data of a run, on the host.

    Args:
      exported: stage -> what it exported, of the earlier stages.
    Returns:
      The data, and what `report.write` shows in place of features: images of the items.
    Raises:
      InputError: it can't be loaded, or not be made into what the config asks for.
    """
    data = configs.find('data', config.data.name).load(config.data)
    for field in OF_CLASSES:
        section, _, name = field.rpartition('.')
        given = (config[section] if section else config)[name]
        if given and data.functions:
            raise InputError(f'config.{field}={given!r} needs classes, config.data has functions')
    shown = {}
    if config.encoder or config.features_from or config.residual.encoder:
        roles = {'images': 'test', 'web': 'web'}
        shown = {to: expand_turns(data.roles[r]).x for to, r in roles.items() if r in data.roles}
    if config.features_from:
        data = _with_features(data, config.features_from, exported)
    if config.describe.by:
        data = describe.describe(data, config.describe.by, config.describe.templates)
    if config.describe.colours:
        data = describe.name_colours(data)
    if config.encoder:
        dtype, parts = config.encoder_dtype, config.encoder_parts
        names = {'dtype': 'config.encoder_dtype', 'parts': 'config.encoder_parts'}
        with configs.under('config', which='config.encoder', **names):
            data = embedding.embed(data, config.encoder, dtype=dtype, parts=parts)
    if config.residual.encoder:
        data = residual.embed(data, config.residual, config.seed)
    return dataclasses.replace(data, stages=exported or {}), shown


def _with_features(data, stage: str, exported):
    """The same classes, each role's items replaced by the features a stage exported for them."""
    if stage not in (exported or {}):
        hint = configs.nearest(stage, exported or ())
        raise InputError(f'config.features_from={stage!r} is no earlier stage{hint}')
    return Data(
        {
            role: dataclasses.replace(expand_turns(dataset), x=exported[stage][role], parts=())
            for role, dataset in data.roles.items()
        }
    )
