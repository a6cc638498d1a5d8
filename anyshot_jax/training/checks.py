"""Checks of a config before any work starts, whatever its method."""

import jax
from ml_collections import ConfigDict

from anyshot_jax.episodes import retrieval
from anyshot_jax.episodes.episodic import task_name
from anyshot_jax.training import population
from anyshot_jax.types import InputError, nearest


def check(config: ConfigDict, *, in_stages: bool) -> None:
    """Raises InputError, naming the field.

    Args:
      in_stages: the run is one stage of several, which hands on what one model made.
    """
    for name in ('steps_per_call', 'batch_size'):
        if config[name] < 1:
            raise InputError(f'config.{name} must be >= 1, got {config[name]}')
    for name, least in (('episodes', 2), ('val_episodes', 1)):
        if config.eval[name] < least:
            why = ' (an interval needs two)' * (least == 2)
            raise InputError(f'config.eval.{name} must be >= {least}{why}, got {config.eval[name]}')
    if config.encoder and config.residual.encoder:
        raise InputError('config.encoder and config.residual.encoder: images pass through one')
    if config.encoder_parts and not config.encoder:
        raise InputError(
            f'config.encoder_parts={tuple(config.encoder_parts)} need an encoder: '
            'set config.encoder'
        )
    if config.eval.role not in ('test', 'val'):
        raise InputError(f'config.eval.role={config.eval.role!r} must be test or val')
    tasks = config.eval.tasks
    pairs = all(isinstance(t, (tuple, list)) and len(t) == 2 for t in tasks)
    if not pairs or not (tasks or config.eval.retrieval):
        raise InputError(f'config.eval.tasks={tasks} must be pairs (ways, shots), like ((5, 1),)')
    for name in ('num_steps', 'log_every', 'eval_every', 'save_every'):
        value = config[name]
        if value < 0 or value % config.steps_per_call:
            raise InputError(
                f'config.{name}={value} must be a multiple of '
                f'config.steps_per_call={config.steps_per_call}, 0 or more'
            )
    if min(config.eval.retrieval_at, default=1) < 1:
        raise InputError(f'config.eval.retrieval_at={config.eval.retrieval_at} must be >= 1')
    kinds = ('', config.eval.within) if config.eval.within else ('',)
    names = [task_name(w, s, within) for within in kinds for w, s in config.eval.tasks]
    if config.eval.retrieval:
        names += retrieval.names(tuple(config.eval.retrieval_at))
    if config.eval.select and config.eval.select not in names:
        raise InputError(
            f'config.eval.select={config.eval.select!r}{nearest(config.eval.select, names)}'
        )
    if config.plan and jax.process_count() > 1:
        raise InputError('config.plan=True is for one process: it shows what each will need')
    if len(population.members(config)) > 1 and in_stages:
        raise InputError(
            'config.num_seeds and config.vary train a population, but a stage hands on what one '
            'model made; run the whole recipe once a seed, with python -m anyshot_jax.sweep'
        )
