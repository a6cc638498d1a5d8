"""run(): build -> restore -> chunks of steps -> log, save, evaluate -> result and report."""

import dataclasses
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from clu import parameter_overview
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from anyshot_jax import (
    checkpoint,
    describe,
    embedding,
    evaluate,
    logbook,
    report,
    residual,
    retrieval,
)
from anyshot_jax import config as configs
from anyshot_jax.episodes import expand_turns
from anyshot_jax.episodic import task_name
from anyshot_jax.types import ACCURACY, Dataset, InputError, Measure, Method
from anyshot_jax.update import AXIS


def make_step(method: Method, *, batch_size: int, steps_per_call: int, devices=None):
    """The compiled step: pmap over devices of scan over steps of vmap over sampled units.

    Unit u of step s is drawn with fold_in(fold_in(key, s), u) whatever the number of devices and
    whatever came before: a resumed run, and one on more devices, sees the same units.

    Returns:
      (state, data, key) -> (state, metrics [steps_per_call]); the given state is used up.
    """
    devices = devices or jax.local_devices()
    if batch_size % len(devices):
        raise InputError(
            f'config.batch_size={batch_size} does not divide over {len(devices)} devices; '
            f'take a multiple of {len(devices)}'
        )
    units = jnp.arange(batch_size).reshape(len(devices), -1)

    def step(state, data, key, units):
        def one(state, _):
            keys = jax.vmap(jax.random.fold_in, (None, 0))(
                jax.random.fold_in(key, state.step), units
            )
            keys = jax.vmap(jax.random.split)(keys)
            batch = jax.vmap(method.sample, (0, None))(keys[:, 0], data)
            return method.update(state, batch, keys[:, 1])

        return jax.lax.scan(one, state, length=steps_per_call)

    mapped = jax.pmap(
        step, AXIS, in_axes=(None, None, None, 0), out_axes=(None, None), donate_argnums=0,
        devices=devices,
    )  # fmt: skip
    return lambda state, data, key: mapped(state, data, key, units)


def on_all_devices(tree):
    """The tree on every device, placed as a step returns its state: else it is compiled twice."""
    mesh = Mesh(np.array(jax.local_devices()), (AXIS,))
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def run(
    config: ConfigDict,
    workdir: str | Path,
    *,
    config_file: str = '',
    on_validation: Callable[[int, evaluate.Values], None] | None = None,
) -> dict[str, float]:
    """Does what the config says, or what is left of it, in `workdir`.

    Args:
      config: as from `config.defaults`; with `stages`, a tuple of names, each naming a config of
        its own in it: they run in order in workdir/<name>, and data[<name>] hands the later ones
        what an earlier one exported.
      config_file: where the config came from, for the report's line that reruns it.
      on_validation: called with the step and its values after each validation, once they are
        written; a scheduler's. It may raise to end the run, which then goes on from its last
        checkpoint.
      workdir: made if it isn't there. It keeps config.json, checkpoints, metrics.jsonl, TensorBoard
        events, result.json and report.html.
    Returns:
      The mean of each value on test, or {} if it was stopped by SIGTERM (the state is saved).
    Raises:
      InputError: something given can't be used; nothing that was there is lost.
    """
    workdir = Path(workdir)
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
        if not (workdir / name / 'result.json').exists():
            return {}
        exported[name] = checkpoint.load_artifacts(workdir / name / 'artifacts.npz')
    return means


def _run_stage(
    config: ConfigDict, workdir: Path, exported, config_file, on_validation
) -> dict[str, float]:
    config = configs.check(config)
    check_periods(config)
    with logbook.locked(workdir):
        logbook.keep_config(config, workdir)
        finished = checkpoint.read_json(workdir / 'result.json')
        if finished and (workdir / 'report.html').exists() and not config.eval_only:
            print(f'{workdir} is finished; give another --workdir to run again')
            return _show(finished, workdir)
        return _build_and_run(config, workdir, exported, config_file, on_validation)


def _build_and_run(config, workdir, exported, config_file, on_validation):
    # Build.
    data = configs.find('data', config.data.name).load(config.data)
    for field in (
        'features_from',
        'encoder',
        'describe.by',
        'describe.colours',
        'residual.encoder',
    ):
        section, _, name = field.rpartition('.')
        given = (config[section] if section else config)[name]
        if given and not all(isinstance(d, Dataset) for d in data.values()):
            raise InputError(f'config.{field}={given!r} needs classes, config.data has functions')
    shown = {}  # pictures of the items, for the report
    if config.encoder or config.features_from or config.residual.encoder:
        roles = {'pictures': 'test', 'web': 'web'}
        shown = {to: expand_turns(data[r]).x for to, r in roles.items() if r in data}
    if config.features_from:
        data = _with_features(data, config.features_from, exported)
    if config.describe.by:
        data = describe.describe(data, config.describe.by, config.describe.templates)
    if config.describe.colours:
        data = describe.name_colours(data)
    if config.encoder:
        data = embedding.embed(
            data, config.encoder, dtype=config.encoder_dtype, parts=config.encoder_parts
        )
    if config.residual.encoder:
        data = residual.embed(data, config.residual, config.seed)
    data = {**data, **(exported or {})}
    method = configs.find('methods', config.method.name).build(config, data)
    data = on_all_devices(data)
    key_init, key_step, key_val, key_test = jax.random.split(jax.random.key(config.seed), 4)
    state = on_all_devices(jax.jit(method.init)(key_init, data))

    # Restore.
    recent = checkpoint.open_manager(workdir / 'checkpoints', keep=2)
    best = checkpoint.open_manager(workdir / 'best', keep=1)
    state, progress = checkpoint.restore_or_init(recent, state)

    # Train.
    if config.eval_only:
        if config.num_steps and not best.all_steps() and not recent.all_steps():
            raise InputError(f'{workdir} holds no checkpoint to evaluate: train first')
    elif config.num_steps:
        overview = parameter_overview.get_parameter_overview(state.params, include_stats=False)
        checkpoint.write_text(workdir / 'parameters.txt', overview + '\n')
        state, progress, stopped = _train(
            config, method, data, (key_step, key_val), state, progress, workdir, recent, best,
            on_validation,
        )  # fmt: skip
        if stopped:
            print(
                f'stopped and saved at step {int(state.step)}; the same command goes on from there'
            )
            return {}

    # Test, once, the step that validation chose.
    state, _ = checkpoint.restore_or_init(best, state)
    values = evaluate.summarise(method.evaluate(state, data, key_test, config.eval.role))
    result = {
        'values': values,
        'measure': method.measure._asdict(),
        'step': int(state.step),
        'seconds': round(progress.get('seconds', 0.0), 1),
        'counts': {role: d.num_classes for role, d in data.items() if isinstance(d, Dataset)},
        'config_file': config_file,
        **evaluate.facts(config),
    }
    text = json.dumps(result, indent=1) + '\n'
    if config.eval_only:  # never the result: the run may not have been trained to the end
        checkpoint.write_text(workdir / f'eval-{result["config_hash"]}.json', text)
        return _show(result, None)
    if exported is not None:
        checkpoint.save_artifacts(workdir / 'artifacts.npz', method.export(state, data, key_test))
    checkpoint.write_text(workdir / 'result.json', text)
    report.write(workdir, method=method, state=state, data=data, config=config, **shown)
    return _show(result, workdir)


def _with_features(data, stage: str, exported):
    """The same classes, each role's items replaced by the features a stage exported for them."""
    if stage not in (exported or {}):
        hint = configs.nearest(stage, exported or ())
        raise InputError(f'config.features_from={stage!r} is no earlier stage{hint}')
    return {
        role: dataclasses.replace(expand_turns(dataset), x=exported[stage][role], parts=())
        for role, dataset in data.items()
        if isinstance(dataset, Dataset)
    }


def _train(config, method, data, keys, state, progress, workdir, recent, best, on_validation):
    """Chunks of steps until the last, the early stop or SIGTERM (then the third value is true)."""
    key_step, key_val = keys
    sign = 1 if method.measure.larger_is_better else -1
    progress = {'best': -sign * math.inf, 'best_step': 0, 'stale': 0, 'seconds': 0.0, **progress}
    pending = progress.pop('pending', {})
    before, started = progress['seconds'], time.monotonic()
    compiled = make_step(method, batch_size=config.batch_size, steps_per_call=config.steps_per_call)
    step = int(state.step)
    due = lambda every: every > 0 and (step % every == 0 or step >= config.num_steps)
    log = logbook.Logbook(workdir, step, config.num_steps, pending)
    with log, logbook.Sigterm() as sigterm:
        while step < config.num_steps and not _enough(config, progress, sign):
            called = time.monotonic()
            state, metrics = compiled(state, data, key_step)
            metrics = jax.device_get(metrics)
            step += config.steps_per_call
            _refuse_nan(metrics, step, recent)
            log.add(metrics, time.monotonic() - called)
            if due(config.log_every):
                log.train(step)
            if due(config.eval_every):
                values = evaluate.summarise(method.evaluate(state, data, key_val, 'val'))
                log.val(step, values)
                value = values[config.eval.select or next(iter(values))]['mean']
                better = sign * (value - progress['best']) > 0
                if better:
                    progress |= {'best': value, 'best_step': step}
                    checkpoint.save(best, state, progress)
                progress['stale'] = 0 if better else progress['stale'] + 1
                if on_validation:
                    on_validation(step, values)
            progress['seconds'] = before + time.monotonic() - started
            if due(config.save_every) or sigterm.came:
                _refuse_nan_state(state, step, recent)
                checkpoint.save(recent, state, {**progress, 'pending': log.pending()})
            if sigterm.came:
                break
    return state, progress, sigterm.came


def _enough(config, progress, sign: int) -> bool:
    """Whether validation says that training can end before its last step; sign: of what is good."""
    reached = config.stop_at > 0 and sign * (progress['best'] - config.stop_at) >= 0
    return reached or 0 < config.early_stop <= progress['stale']


def _refuse_nan(metrics, step, recent) -> None:
    finite = np.all([np.isfinite(m).reshape(len(m), -1).all(1) for m in metrics.values()], axis=0)
    if not finite.all():
        first = step - len(finite) + 1
        bad = first + int(np.argmin(finite))
        names = [n for n, m in metrics.items() if not np.isfinite(m[bad - first]).all()]
        raise InputError(
            f'{", ".join(names)} became NaN or infinite at step {bad} (steps {first} to {step}); '
            f'step {max(recent.all_steps(), default=0)} is kept. Try a lower '
            'config.optim.learning_rate or config.optim.clip_norm=1.0, in a new --workdir'
        )


def _refuse_nan_state(state, step, recent) -> None:
    """The last step's own damage, which its metrics can't show yet."""
    if not all(np.isfinite(a).all() for a in jax.tree.leaves((state.params, state.extra))):
        raise InputError(
            f'the parameters became NaN or infinite by step {step}; the state of step '
            f'{max(recent.all_steps(), default=0)} is kept. Try a lower '
            'config.optim.learning_rate or config.optim.clip_norm=1.0, in a new --workdir'
        )


def check_periods(config: ConfigDict) -> None:
    """Refuses values of the spine that no run could use, before anything is built.

    Raises:
      InputError: names the field.
    """
    for name in ('steps_per_call', 'batch_size'):
        if config[name] < 1:
            raise InputError(f'config.{name} must be >= 1, got {config[name]}')
    for name in ('episodes', 'val_episodes'):
        if config.eval[name] < 1:
            raise InputError(f'config.eval.{name} must be >= 1, got {config.eval[name]}')
    if config.encoder and config.residual.encoder:
        raise InputError('config.encoder and config.residual.encoder: pictures pass through one')
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
                f'config.steps_per_call={config.steps_per_call}'
            )
    if min(config.eval.retrieval_at, default=1) < 1:
        raise InputError(f'config.eval.retrieval_at={config.eval.retrieval_at} must be >= 1')
    kinds = ('', config.eval.within) if config.eval.within else ('',)
    names = [task_name(w, s, within) for within in kinds for w, s in config.eval.tasks]
    if config.eval.retrieval:
        names += retrieval.names(tuple(config.eval.retrieval_at))
    if config.eval.select and config.eval.select not in names:
        raise InputError(
            f'config.eval.select={config.eval.select!r}{configs.nearest(config.eval.select, names)}'
        )


def _show(result, workdir: Path | None) -> dict[str, float]:
    print(evaluate.table(result['values'], Measure(**result.get('measure', ACCURACY._asdict()))))
    if workdir:
        print(f'report: {workdir / "report.html"}')
    return {name: v['mean'] for name, v in result['values'].items()}
