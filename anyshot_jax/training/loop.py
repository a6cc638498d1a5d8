"""run(): build -> restore -> chunks of steps -> log, save, evaluate -> result and report."""

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from clu import parameter_overview
from ml_collections import ConfigDict
from tqdm import tqdm

from anyshot_jax import config as configs
from anyshot_jax import report
from anyshot_jax.runtime import ahead
from anyshot_jax.runtime.devices import for_batch, on_all_devices
from anyshot_jax.storage import files
from anyshot_jax.target import on_cpu
from anyshot_jax.training import (
    checkpoint,
    checks,
    fit,
    intervals,
    logbook,
    plan,
    plan_for,
    population,
    prepare,
    processes,
    progress,
    result,
)
from anyshot_jax.training.step import make_population_step
from anyshot_jax.types import InputError


def run(
    config: ConfigDict,
    workdir: str | Path,
    *,
    config_file: str = '',
    on_validation: Callable[[int, intervals.Values], None] | None = None,
) -> dict[str, float]:
    """Does what the config says, or what is left of it, in `workdir`.

    Args:
      config: as from `config.defaults`; with `stages`, a tuple of names, each naming a config of
        its own in it: they run in order in workdir/<name>, and data.stages[<name>] hands the later
        ones what an earlier one exported.
      config_file: where the config came from, for the report's line that reruns it.
      on_validation: called with the step and its values after each validation, once they are
        written; a scheduler's. It may raise to end the run, which then goes on from its last
        checkpoint.
      workdir: made if it isn't there, on a disk or gs://BUCKET/... It keeps config.json,
        checkpoints, metrics.jsonl, TensorBoard events, result.json and report.html.
    Returns:
      The mean of each value on test, or {} if it was stopped by SIGTERM (the state is saved) or
      only planned.
    Raises:
      InputError: something given can't be used; nothing that was there is lost.
    """
    workdir = files.folder(workdir)
    if 'stages' not in config:
        return _run_stage(config, workdir, None, config_file, on_validation)
    exported: dict[str, dict] = {}
    means: dict[str, float] = {}
    for name in config.stages:
        if name not in config:
            raise InputError(
                f'config.stages names {name!r}, but there is no config.{name}'
                f'{configs.nearest(name, set(config) - {"stages"})}'
            )
        means = _run_stage(config[name], workdir / name, exported, config_file, on_validation)
        if not processes.any_of_them((workdir / name / 'result.json').exists()):
            if (config[name].get('plan') or config[name].get('plan_for')) and name != config.stages[
                -1
            ]:
                print(f'The later stages need what {name!r} exports: run it, then plan again.')
            return {}
        exported[name] = files.load_artifacts(workdir / name / 'artifacts.npz')
    return means


def _run_stage(
    config: ConfigDict, workdir: Path, exported, config_file, on_validation
) -> dict[str, float]:
    config = configs.check(config)
    checks.check(config, in_stages=exported is not None)
    if config.plan or config.plan_for:  # without the workdir
        return _build_and_run(config, workdir, exported, config_file, on_validation)
    with contextlib.ExitStack() as held:

        def hold():
            held.enter_context(logbook.locked(workdir))
            logbook.keep_config(config, workdir)

        processes.check_told_alike(configs.to_json(config), workdir)
        processes.by_the_first(hold)
        processes.check_shared(workdir)
        finished = files.read_json(workdir / 'result.json')
        over = bool(finished) and (workdir / 'report.html').exists()
        if processes.any_of_them(over) and not config.eval_only:
            return result.show(finished, workdir, 'finished; give another --workdir to run again')
        return _build_and_run(config, workdir, exported, config_file, on_validation)


def _build_and_run(config, workdir, exported, config_file, on_validation):
    # Build.
    if config.plan_for:
        ahead.machine(config.plan_for)  # before work starts
    host, shown = prepare.load(config, exported)
    if config.plan_for:
        plan_for.show(config, host)
        return {}
    everyone = population.of(config, host)
    devices = for_batch(config.batch_size if config.num_steps else 0)
    if (line := fit.devices_line(config.batch_size, devices)) and processes.first():
        print(line)
    own = [d for d in devices if d.process_index == jax.process_index()]
    data = on_all_devices(host, own)
    states = on_all_devices(jax.jit(everyone.init)(data), own)

    if config.plan:
        plan.show(config, everyone, data, states, devices)
        return {}

    # Restore.
    recent = checkpoint.open_manager(workdir / 'checkpoints', keep=2)
    best = checkpoint.open_manager(workdir / 'best', keep=1)
    states, kept = _restored(recent, states)
    sign = 1 if everyone.methods[0].measure.larger_is_better else -1
    come = progress.Progress.start(len(everyone.members), sign, kept)

    # Train.
    if config.eval_only:
        if config.num_steps and not best.all_steps() and not recent.all_steps():
            raise InputError(f'{workdir} holds no checkpoint to evaluate: train first')
    elif config.num_steps:
        params = population.take(states, 0).params
        overview = parameter_overview.get_parameter_overview(params, include_stats=False)
        processes.by_the_first(
            lambda: files.write_text(workdir / 'parameters.txt', overview + '\n')
        )
        sizes = {'batch_size': config.batch_size, 'steps_per_call': config.steps_per_call}
        build = lambda config: population.of(config, host)
        compiled = fit.fitted(config, build, data, states, devices)[1]
        compiled = compiled or make_population_step(everyone, **sizes, devices=devices)
        log = logbook.Logbook(workdir, _step(states), config.num_steps, kept.get('pending', {}))
        states, stopped = _train(
            config, everyone, compiled, data, states, come, log, (recent, best), on_validation
        )
        if stopped:
            if processes.first():
                done = f'stopped and saved at step {_step(states)}'
                print(f'{done}; the same command goes on from there')
            return {}

    # Test, once, the step that validation chose.
    chosen, of_best = _restored(best, states)
    if config.eval_only and config.num_steps:
        if not (kept or of_best):
            raise InputError(f'no checkpoint of {workdir} can be used: train in another --workdir')
        if of_best:  # it may be ahead of the newest checkpoint
            diverged = come.diverged
            come = progress.Progress.start(len(everyone.members), sign, of_best)
            come.diverged = np.maximum(come.diverged, diverged)
    values = _evaluate(everyone, chosen, data, come, 'test', config.eval.role)
    foremost, found = result.of(config, config_file, everyone, chosen, come, values, data)

    def keep():
        text = json.dumps(found, indent=1) + '\n'
        if config.eval_only:  # never the result: the run may not have been trained to the end
            files.write_text(workdir / f'eval-{found["config_hash"]}.json', text)
            return
        method, state = everyone.methods[foremost], population.take(chosen, foremost)
        if exported is not None:
            arrays = method.export(state, data, everyone.keys['test'][foremost])
            files.save_artifacts(workdir / 'artifacts.npz', arrays)
        files.write_text(workdir / 'result.json', text)
        own = everyone.members[foremost].config(config)
        report.write(workdir, method=method, state=state, data=data, config=own, **shown)

    processes.by_the_first(keep)
    return result.show(found, None if config.eval_only else workdir)


def _train(config, everyone, compiled, data, states, come, log, managers, on_validation):
    """Chunks of steps until the last, the early stop or SIGTERM (then the second value is true)."""
    recent, best = managers
    before, started = come.seconds, time.monotonic()
    step = _step(states)
    due = lambda every: every > 0 and (step % every == 0 or step >= config.num_steps)
    periods = config.log_every, config.eval_every, config.save_every
    stopped = False
    calls: list[tuple[int, Any]] = []  # whose metrics have not been read yet
    clock = time.monotonic()

    def read():
        """Takes in the metrics of the calls so far: waits for the last one."""
        nonlocal clock
        while calls:
            last, metrics = calls.pop(0)
            metrics = jax.device_get(metrics)
            _go_on_without(come.note_metrics(metrics, last), everyone, come, recent)
            log.add(metrics, time.monotonic() - clock)
            clock = time.monotonic()

    with log, logbook.Sigterm() as sigterm:
        while step < config.num_steps and not come.ended(config).all():
            clock = clock if calls else time.monotonic()
            states, metrics = compiled(states, data)
            step += config.steps_per_call
            read()  # only now, so that an accelerator has work while we wait and write
            calls.append((step, metrics))
            if on_cpu() or any(map(due, periods)):
                read()
            if due(config.log_every):
                log.train(step)
            if due(config.eval_every):
                values = _evaluate(everyone, states, data, come, 'val', 'val')
                mean = intervals.over_members(values)
                log.val(step, values)
                name = config.eval.select or next(iter(mean))
                column = np.array([v[name]['mean'] if v else np.nan for v in values])
                better = come.validated(step, column, config)
                if better.any():
                    _keep(best, step, states, better, come)
                if on_validation:
                    on_validation(step, mean)
            come.seconds = before + time.monotonic() - started
            stopped = processes.any_of_them(sigterm.came)
            if due(config.save_every) or stopped:
                read()
                _go_on_without(come.note_state(states, step), everyone, come, recent)
                kept = {**come.kept(), 'pending': log.pending()}
                checkpoint.save(recent, step, processes.everywhere(states), kept)
            if stopped:
                break
        read()
    return states, stopped


def _evaluate(everyone, states, data, come, phase: str, role: str) -> list:
    """The values of every member, None for one that has diverged."""
    own = jax.tree.leaves(data)[0].devices()
    placed = on_all_devices((everyone.keys[phase], states, data), own)
    keys, states, data = processes.everywhere(placed)
    of = lambda i, method: method.evaluate(population.take(states, i), data, keys[i], role)
    return [
        None if come.diverged[i] else intervals.summarise(of(i, method))
        for i, method in enumerate(everyone.methods)
    ]


def _keep(best, step: int, states, better, come) -> None:
    """Saves the states of the members that are better than ever, beside the others' best.

    A run that was killed comes by its best steps again; what is there goes only when the new one is
    whole, for it holds what may not come again.
    """
    there = best.latest_step()
    if not better.all() and there is not None:
        old, kept = _restored(best, states)
        if not kept:
            raise InputError(
                f'{best.directory} cannot be read any more, and with it the best states of the '
                'other members; restore it, or train in another --workdir'
            )
        states = population.where(better, states, old)
    number = step if there is None else max(step, there + 1)
    checkpoint.save(best, number, processes.everywhere(states), come.kept())


def _restored(manager, states):
    states, kept = checkpoint.restore_or_init(manager, processes.everywhere(states))
    return processes.here(states), kept


def _go_on_without(diverged: dict[int, str], everyone, come, recent) -> None:
    for index, why in diverged.items():
        if come.diverged.all():
            raise InputError(
                f'{why}; step {max(recent.all_steps(), default=0)} is kept. Try a lower '
                'config.optim.learning_rate or config.optim.clip_norm=1.0, in a new --workdir'
            )
        tqdm.write(f'{everyone.members[index]}: {why}; the other members go on')


def _step(states) -> int:
    return int(np.max(states.step))
