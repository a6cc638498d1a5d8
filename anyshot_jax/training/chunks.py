"""Chunks of steps, each one compiled call: train, log, save and validate until the last."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from clu import parameter_overview
from ml_collections import ConfigDict

from anyshot_jax.runtime.devices import on_all_devices
from anyshot_jax.storage import files
from anyshot_jax.target import on_cpu
from anyshot_jax.training import (
    checkpoint,
    fit,
    intervals,
    logbook,
    population,
    processes,
)
from anyshot_jax.training.population import Population
from anyshot_jax.training.progress import Progress
from anyshot_jax.training.step import make_population_step
from anyshot_jax.types import Array, Data, InputError

OnValidation = Callable[[int, intervals.Values], None]
OVER_NUM_STEPS = ('cosine', 'linear')  # schedules that end with the run


class Run(NamedTuple):
    """One run of one stage: the record that its parts share."""

    config: ConfigDict
    folder: Path
    config_file: str
    stages: Mapping[str, Any] | None  # what earlier stages exported; None: the run has no stages
    on_validation: OnValidation | None
    population: Population
    host: Data  # as it is prepared, on the host
    data: Data  # on all of this process's devices
    devices: list[jax.Device]  # of all processes
    shown: dict[str, Array]  # images that the report shows in place of features
    recent: ocp.CheckpointManager
    best: ocp.CheckpointManager


def train(run: Run, states: Any, progress: Progress, pending: dict) -> tuple[Any, bool]:
    """Chunks of steps until the last, the early stop or SIGTERM (then the second value is true)."""
    config, step, stopped = run.config, step_of(states), False
    params = population.take(states, 0).params
    overview = parameter_overview.get_parameter_overview(params, include_stats=False)
    processes.on_process_0(lambda: files.write_text(run.folder / 'parameters.txt', overview + '\n'))
    sizes = {'batch_size': config.batch_size, 'steps_per_call': config.steps_per_call}
    build = lambda config: population.build(config, run.host)
    compiled = fit.fitted(config, build, run.data, states, run.devices)[1]
    compiled = compiled or make_population_step(run.population, **sizes, devices=run.devices)
    if 0 < step < config.num_steps:
        processes.say(f'goes on from step {step} of {config.num_steps}')
        if config.optim.schedule in OVER_NUM_STEPS:
            processes.say(
                f'the learning rate is that of a {config.optim.schedule} schedule over '
                f'{config.num_steps} steps'
            )
    if step < config.num_steps:
        processes.say('compiles the training step; the first call takes longest')
    due = lambda every: every > 0 and (step % every == 0 or step >= config.num_steps)
    log = logbook.Logbook(run.folder, step, config.num_steps, pending)
    periods = config.log_every, config.eval_every, config.save_every
    calls: list[tuple[int, Any]] = []  # whose metrics have not been read yet
    clock = time.monotonic()

    def read() -> None:
        """Takes in the metrics of the calls so far: waits for the last one."""
        nonlocal clock
        while calls:
            last, metrics = calls.pop(0)
            metrics = jax.device_get(metrics)
            _go_on_without(progress.note_metrics(metrics, last), run, progress)
            log.add(metrics, time.monotonic() - clock)
            clock = time.monotonic()

    progress.tick()
    with log, logbook.Sigterm() as sigterm:
        while step < config.num_steps and not progress.ended(config).all():
            clock = clock if calls else time.monotonic()
            states, metrics = compiled(states, run.data)
            step += config.steps_per_call
            read()  # only now, so that an accelerator has work while we wait and write
            calls.append((step, metrics))
            if on_cpu() or any(map(due, periods)):
                read()
            if due(config.log_every):
                log.train(step)
            if due(config.eval_every):
                _validate(run, states, progress, step, log)
            progress.tick()
            stopped = processes.any_process(sigterm.came)
            if due(config.save_every) or stopped:
                read()
                _go_on_without(progress.note_state(states, step), run, progress)
                record = {**progress.record(), 'pending': log.pending()}
                checkpoint.save(run.recent, step, states, record)
                log.flush()
            if stopped:
                break
        read()
    return states, stopped


def _validate(run: Run, states: Any, progress: Progress, step: int, log) -> None:
    values = evaluate(run, states, progress, 'val', 'val')
    mean = intervals.over_members(values)
    log.val(step, values)
    name = run.config.eval.select or next(iter(mean))
    column = np.array([v[name]['mean'] if v else np.nan for v in values])
    better = progress.validated(step, column, run.config)
    if better.any():
        keep_best(run.best, step, states, better, progress)
    if run.on_validation:
        run.on_validation(step, mean)


def evaluate(run: Run, states: Any, progress: Progress, phase: str, role: str) -> list:
    """The values of every member, None for one that has diverged."""
    everyone = run.population
    own = jax.tree.leaves(run.data)[0].devices()
    placed = on_all_devices((everyone.keys[phase], states, run.data), own)
    keys, states, data = processes.to_global(placed)
    of = lambda i, method: method.evaluate(population.take(states, i), data, keys[i], role)
    return [
        None if progress.diverged[i] else intervals.summarise(of(i, method))
        for i, method in enumerate(everyone.methods)
    ]


def keep_best(best, step: int, states, better, progress: Progress) -> None:
    """Saves the states of the members that are better than ever, beside the others' best.

    A run that was killed comes by its best steps again; what is there goes only when the new one is
    whole, for it holds what may not come again.
    """
    there = best.latest_step()
    if not better.all() and there is not None:
        old, record = checkpoint.restore_or_init(best, states)
        if not record:
            raise InputError(
                f'{best.directory} cannot be read any more, and with it the best states of the '
                'other members; restore it, or train in another --workdir'
            )
        states = population.where(better, states, old)
    number = step if there is None else max(step, there + 1)
    checkpoint.save(best, number, states, progress.record())


def _go_on_without(diverged: dict[int, str], run: Run, progress: Progress) -> None:
    for index, why in diverged.items():
        if progress.diverged.all():
            raise InputError(
                f'{why}; step {max(run.recent.all_steps(), default=0)} is kept. Try a lower '
                'config.optim.learning_rate or config.optim.clip_norm=1.0, in a new --workdir'
            )
        processes.say(f'{run.population.members[index]}: {why}; the other members go on')


def step_of(states) -> int:
    return int(np.max(states.step))
