"""run(): build -> restore -> chunks of steps -> log, save, evaluate -> result and report."""

import contextlib
import json
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from anyshot_jax import config as configs
from anyshot_jax import report
from anyshot_jax.runtime import ahead
from anyshot_jax.runtime.devices import for_batch, on_all_devices
from anyshot_jax.storage import files
from anyshot_jax.training import (
    checkpoint,
    checks,
    fit,
    logbook,
    plan,
    plan_for,
    population,
    prepare,
    processes,
    result,
    workdir,
)
from anyshot_jax.training.chunks import OnValidation, Run, evaluate, step_of, train
from anyshot_jax.training.population import Population
from anyshot_jax.training.progress import Progress
from anyshot_jax.training.step import check_used
from anyshot_jax.training.trained_run import TrainedRun
from anyshot_jax.types import Array, Data, InputError, nearest


def run(
    config: ConfigDict,
    folder: str | Path,
    *,
    config_file: str = '',
    on_validation: OnValidation | None = None,
) -> TrainedRun:
    """Does what the config says, or what is left of it, in a workdir.

    Args:
      config: as from `config.defaults`; with `stages`, a tuple of names, each naming a config of
        its own in it: they run in order in <folder>/<name>, and data.stages[<name>] hands the later
        ones what an earlier one exported.
      folder: the workdir, made if it isn't there, on a disk or gs://BUCKET/... It keeps
        config.json, checkpoints, metrics.jsonl, TensorBoard events, result.json and report.html.
      config_file: where the config came from, for the report's line that reruns it.
      on_validation: called with the step and its values after each validation, once they are
        written; a scheduler's. It may raise to end the run, which then goes on from its last
        checkpoint.
    Returns:
      The run, of the last stage if there are several. Its `means` of the test are {} if it was
      stopped by SIGTERM (the state is saved) or only planned.
    Raises:
      InputError: something given can't be used; nothing that was there is lost.
    """
    folder = files.folder(folder)
    if 'stages' not in config:
        means = _run_stage(config, folder, None, config_file, on_validation)
        return TrainedRun(folder, means)
    exported: dict[str, dict] = {}
    means, own = {}, folder
    for number, name in enumerate(config.stages, 1):
        if name not in config:
            raise InputError(
                f'config.stages names {name!r}, but there is no config.{name}'
                f'{nearest(name, set(config) - {"stages"})}'
            )
        own = folder / name
        processes.say(f'stage {number} of {len(config.stages)}: {name}')
        means = _run_stage(config[name], own, exported, config_file, on_validation)
        if not processes.any_process((own / 'result.json').exists()):
            planned = config[name].get('plan') or config[name].get('plan_for')
            if planned and name != config.stages[-1]:
                print(f'The later stages need what {name!r} exports: run it, then plan again.')
            return TrainedRun(own, {})
        exported[name] = files.load_artifacts(own / 'artifacts.npz')
    return TrainedRun(own, means)


def _run_stage(config, folder, stages, config_file, on_validation) -> dict[str, float]:
    config = configs.check(config)
    checks.check(config, in_stages=stages is not None)
    if config.plan or config.plan_for:  # without the workdir
        _plan(config, stages)
        return {}
    with contextlib.ExitStack() as held:

        def hold() -> None:
            held.enter_context(logbook.locked(folder))
            workdir.check_config(config, folder)

        processes.check_same_flags(configs.to_json(config), folder)
        processes.on_process_0(hold)
        processes.check_shared(folder)
        longer = workdir.check_config(config, folder)
        record = files.read_json(folder / 'result.json')
        finished = bool(record) and (folder / 'report.html').exists() and not longer
        if processes.any_process(finished) and not config.eval_only:
            changed = workdir.changed_data(record, config)
            news = 'finished; give another --workdir to run again, or a larger config.num_steps'
            return result.show(record, folder, f'{news}\n{changed}'.strip())
        given = config
        config, everyone, host, shown, devices = _build(config, stages)
        own = [d for d in devices if d.process_index == jax.process_index()]
        data = on_all_devices(host, own)
        states = on_all_devices(jax.jit(everyone.init)(data), own)
        check_used(everyone, states, data)
        processes.on_process_0(lambda: workdir.keep_config(given, folder, longer=longer))
        return _restore_train_test(
            Run(
                config, folder, config_file, stages, on_validation, everyone, host, data,
                devices, shown,
                *workdir.open_managers(folder),
            ),
            states,
        )  # fmt: skip


def _build(
    config, stages
) -> tuple[ConfigDict, Population, Data, dict[str, Array], list[jax.Device]]:
    processes.say(f'reads {config.data.name}, builds {config.method.name}')
    config, host, shown = prepare.load(config, stages)
    everyone = population.build(config, host)
    devices = for_batch(config.batch_size if config.num_steps else 0)
    if (line := fit.devices_line(config.batch_size, devices)) and processes.first():
        print(line)
    return config, everyone, host, shown, devices


def _plan(config, stages) -> None:
    if config.plan_for:
        ahead.machine(config.plan_for)  # before work starts
        config, host, _ = prepare.load(config, stages)
        plan_for.show(config, host)
        return
    config, everyone, host, _, devices = _build(config, stages)
    own = [d for d in devices if d.process_index == jax.process_index()]
    data = on_all_devices(host, own)
    states = on_all_devices(jax.jit(everyone.init)(data), own)
    plan.show(config, everyone, data, states, devices)


def _restore_train_test(run: Run, states: Any) -> dict[str, float]:
    config, members = run.config, run.population.members
    states, record = checkpoint.restore_or_init(run.recent, states)
    sign = 1 if run.population.methods[0].measure.larger_is_better else -1
    progress = Progress.resumed(len(members), sign, record)
    if config.eval_only:
        if config.num_steps and not run.best.all_steps() and not run.recent.all_steps():
            raise InputError(f'{run.folder} holds no checkpoint to evaluate: train first')
    elif config.num_steps:
        states, stopped = train(run, states, progress, record.get('pending', {}))
        if stopped:
            if processes.first():
                done = f'stopped and saved at step {step_of(states)}'
                print(f'{done}; the same command goes on from there')
            return {}

    # Test, once, the step that validation chose.
    states, of_best = checkpoint.restore_or_init(run.best, states, reads_only=True)
    if config.eval_only and config.num_steps and not (record or of_best):
        raise InputError(f'no checkpoint of {run.folder} can be used: train in another --workdir')
    if run.best.all_steps() and not of_best:  # no other state is what validation chose
        raise InputError(
            f'{run.folder / workdir.BEST} is damaged: restore it, train again in another '
            '--workdir, or remove it to have the last state tested'
        )
    if not config.eval_only:
        for manager, name in ((run.recent, workdir.RECENT), (run.best, workdir.BEST)):
            checkpoint.drop_older(manager, states, workdir.KEEP[name])
    elif config.num_steps:
        progress = Progress.resumed(len(members), sign, record, of_best)
    values = evaluate(run, states, progress, 'test', config.eval.role)
    return _write(run, states, progress, values)


def _write(run: Run, states: Any, progress: Progress, values: list) -> dict[str, float]:
    """Writes result, artifacts and report on the first process; prints the table."""
    config, folder = run.config, run.folder
    best, record = result.make_record(
        config, run.config_file, run.population, states, progress, values, run.data
    )
    text = json.dumps(record, indent=1) + '\n'
    if config.eval_only:  # never the result: the run may not have been trained to the end
        name = f'eval-{record["config_hash"]}.json'
        processes.on_process_0(lambda: files.write_text(folder / name, text))
        return result.show(record, None)
    method, state = run.population.methods[best], population.take(states, best)

    def export() -> None:
        arrays = method.export(state, run.data, run.population.keys['test'][best])
        files.save_artifacts(folder / 'artifacts.npz', arrays)

    def write() -> None:
        if run.stages is not None:
            export()
        files.write_text(folder / 'result.json', text)
        own = run.population.members[best].config(config)
        report.write(folder, method=method, state=state, data=run.data, config=own, **run.shown)

    processes.on_process_0(write)
    return result.show(record, folder)
