"""A run's folder as others read it: its config, its method and the state of its best step."""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from anyshot_jax import config as configs
from anyshot_jax.storage import files
from anyshot_jax.storage.folders import user_path
from anyshot_jax.training import checkpoint, population, prepare
from anyshot_jax.training.progress import Progress
from anyshot_jax.types import Data, InputError, Method, TrainState

MAX_CONFIG = 10_000_000  # bytes of a config.json
RECENT, BEST = 'checkpoints', 'best'
KEEP = {RECENT: 2, BEST: 1}  # checkpoints that stay


class Trained(NamedTuple):
    """A trained run, read from its workdir."""

    config: ConfigDict  # of the member that is best on validation
    method: Method
    state: TrainState


def read_config(folder: Path) -> ConfigDict:
    """The config of a run of one stage.

    Raises:
      InputError: the folder holds none; names its stages where it holds those of a recipe.
    """
    path = folder / 'config.json'
    if not path.exists():
        stages = sorted(p.parent.name for p in folder.glob('*/config.json'))
        if stages:
            named = ' or '.join(str(folder / name) for name in stages)
            raise InputError(f'{folder} is a run of several stages: give {named}')
        raise InputError(f'{folder} is no workdir: there is no config.json in it')
    try:
        return configs.from_json(files.read_whole(path, MAX_CONFIG).decode())
    except (InputError, OSError, UnicodeDecodeError) as e:
        raise InputError(f'{path}: {e}') from e


def load(folder: str | Path) -> Trained:
    """Config, method and best state of a run, which loads its data once more.

    Raises:
      InputError: no run there, one of several stages, one without a checkpoint, or its data can't
        be loaded any more.
    """
    folder = files.folder(folder)
    config = read_config(folder)
    try:
        return _loaded(folder, config)
    except InputError:
        raise
    except Exception as e:  # whatever a config that was tampered with leads to
        raise InputError(f'{folder} holds no run to use: {type(e).__name__}: {e}') from e


def _loaded(folder: Path, config: ConfigDict) -> Trained:
    config, data, _ = prepare.load(config, _exports_beside(folder, config))
    everyone = population.members(config)
    build = configs.find('methods', config.method.name).build
    method = build(everyone[0].config(config), data)
    state, best = restore(folder, config, method, data)
    own = everyone[best].config(config)
    return Trained(own, method if best == 0 else build(own, data), state)


def restore(folder: Path, config: ConfigDict, method: Method, data: Data) -> tuple[TrainState, int]:
    """The state of the best member's best step, and which member that is.

    Nothing of the size that the config asks for is made: it came with the folder, and may ask for
    anything.

    Args:
      method: of any member. data: what `method.init` makes a state of the right shapes of.
    Raises:
      InputError: there is no checkpoint, the best one can't be read (the newest is another), or the
        config's state has other shapes.
    """
    init = jax.jit(method.init)
    key = jax.random.key(config.seed)
    if not config.num_steps:
        return init(key, data), 0
    many = len(population.members(config))
    one = jax.eval_shape(init, key, data)
    states = jax.tree.map(lambda a: jax.ShapeDtypeStruct((many, *a.shape), a.dtype), one)
    for name in (BEST, RECENT):
        if not (folder / name).is_dir():
            continue
        with contextlib.closing(checkpoint.open_manager(folder / name, keep=KEEP[name])) as manager:
            states, record = checkpoint.restore_or_init(manager, states, reads_only=True)
            damaged = not record and bool(manager.all_steps())
        if record:
            break
        if damaged:
            raise InputError(
                f'{folder / name} is damaged: restore it, or train again (or config.json is '
                "another run's)"
            )
    else:
        raise InputError(f'{folder} holds no checkpoint: train first')
    if many == 1:
        return population.take(states, 0), 0
    sign = 1 if method.measure.larger_is_better else -1
    result = files.read_json(folder / 'result.json') or {}
    best = result.get('foremost', Progress.resumed(many, sign, record).best_member())
    if not (isinstance(best, int) and 0 <= best < many):
        raise InputError(f'{folder}/result.json is damaged: foremost={best!r} is no member')
    return population.take(states, best), best


def open_managers(folder: Path) -> tuple[ocp.CheckpointManager, ocp.CheckpointManager]:
    """Managers of the newest checkpoints and of the best one."""
    recent, best = (checkpoint.open_manager(folder / n, keep=KEEP[n]) for n in (RECENT, BEST))
    return recent, best


def _exports_beside(folder: Path, config: ConfigDict) -> Mapping[str, Any] | None:
    """Arrays that the other stages of the recipe exported, if the config names one of them."""
    fields = [config.features_from, *config.method.values()]
    exports = {
        path.parent.name: files.load_artifacts(path)
        for path in sorted(folder.parent.glob('*/artifacts.npz'))
        if path.parent.name in fields
    }
    return exports or None


def has_work(workdir: Path) -> bool:
    """True if there is a checkpoint or a result: else the folder belongs to no config yet."""
    if (workdir / 'result.json').exists():
        return True
    folders = [workdir / name for name in (RECENT, BEST)]
    return any(p.name.isdigit() for f in folders if f.is_dir() for p in f.iterdir())


def check_config(config: ConfigDict, workdir: Path) -> bool:
    """Refuses a workdir that was made with other fields; says whether training goes on for longer.

    `eval_only` may differ, and with it the sections `eval` and `data`: a trained model is tried in
    other tasks and on other data. `num_steps` may grow.

    Raises:
      InputError: names the fields that differ.
    """
    old, new = files.read_json(workdir / 'config.json'), json.loads(configs.to_json(config))
    if old is None or not has_work(workdir):
        return False
    free: tuple[str, ...] = ('eval_only', 'eval', 'data') if config.eval_only else ('eval_only',)
    longer = not config.eval_only and 0 < old.get('num_steps', 0) < config.num_steps
    free += ('num_steps',) * longer
    # What the package has gained since was at its default then.
    old = {**json.loads(json.dumps({k: configs.SPINE[k] for k in NEWER_FIELDS})), **old}
    pick = lambda fields: {k: v for k, v in fields.items() if k not in free}
    if lines := configs.differences(pick(old), pick(new)):
        raise InputError(
            f'{workdir} was made with another config; give another --workdir or undo:\n  '
            + '\n  '.join(lines)
        )
    return longer


NEWER_FIELDS = ('num_seeds', 'vary')  # fields of config.SPINE that say what a checkpoint holds


def keep_config(config: ConfigDict, workdir: Path, *, longer: bool) -> None:
    """Writes config.json once data and method are built, unless the folder has one that holds.

    A command that failed before leaves a folder that belongs to nobody: the corrected one goes on
    in it. The result of a run that is trained for longer is kept as result-STEPS.json.
    """
    if config.num_steps and not (files.on_disk(workdir) or str(workdir).startswith('gs:')):
        raise InputError(  # Orbax writes nowhere else
            f'--workdir={workdir}: checkpoints are kept on a disk or at gs://BUCKET/...: train '
            'there, or in a folder that the bucket is mounted as'
        )
    path, result = workdir / 'config.json', workdir / 'result.json'
    if config.eval_only or (has_work(workdir) and path.exists() and not longer):
        return
    if longer and result.exists():
        record = files.read_json(result) or {}
        files.write_text(workdir / f'result-{record.get("step", 0)}.json', result.read_text())
        result.unlink()
    if longer and (workdir / 'report.html').exists():
        (workdir / 'report.html').unlink()
    files.write_text(path, configs.to_json(config) + '\n')


def data_files(config: ConfigDict) -> dict[str, Any]:
    """Number and digest of names and sizes of the files below config.data.dir; {} without one."""
    root = user_path(config.data.dir or '/nowhere')
    if not files.on_disk(config.data.dir) or not root.exists():
        return {}
    paths = sorted(p for p in (root.rglob('*') if root.is_dir() else [root]) if p.is_file())
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f'{path.relative_to(root)}\0{path.stat().st_size}\n'.encode())
    return {'number': len(paths), 'digest': digest.hexdigest()[:12]}


def changed_data(result: Mapping[str, Any], config: ConfigDict) -> str:
    """A sentence if the files of a finished run's data are others now; ''."""
    old, new = result.get('data_files') or {}, data_files(config)
    if not old or not new or old == new:
        return ''
    return (
        f'the files in {config.data.dir} are not those that it was trained on '
        f'({old["number"]} then, {new["number"]} now; others by name or size): '
        'give another --workdir to train on them'
    )
