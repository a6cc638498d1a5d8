"""A run's folder as others read it: its config, its method and the state of its best step."""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from anyshot_jax import config as configs
from anyshot_jax.episodes.episodic import EMBED_CHUNK
from anyshot_jax.runtime.devices import map_rows
from anyshot_jax.storage import files
from anyshot_jax.storage.folders import user_path
from anyshot_jax.training import checkpoint, population, prepare
from anyshot_jax.training.progress import Progress
from anyshot_jax.types import Array, Data, Episode, InputError, Method, TrainState

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
        if path.stat().st_size > MAX_CONFIG:
            raise InputError(f'it is larger than {MAX_CONFIG:,} bytes')
        return configs.from_json(path.read_text('utf-8'))
    except (InputError, OSError, UnicodeDecodeError) as e:
        raise InputError(f'{path}: {e}') from e


def load(folder: str | Path) -> Trained:
    """Config, method and best state of a run, which loads its data once more.

    Raises:
      InputError: no run there, one of several stages, one without a checkpoint, or its data can't
        be loaded any more.
    """
    folder = files.folder(user_path(str(folder)) if files.on_disk(folder) else folder)
    config = read_config(folder)
    config, data, _ = prepare.load(config, _exports_beside(folder, config))
    everyone = population.members(config)
    build = configs.find('methods', config.method.name).build
    method = build(everyone[0].config(config), data)
    state, best = restore(folder, config, method, data)
    own = everyone[best].config(config)
    return Trained(own, method if best == 0 else build(own, data), state)


def restore(folder: Path, config: ConfigDict, method: Method, data: Data) -> tuple[TrainState, int]:
    """The state of the best member's best step, and which member that is.

    Args:
      method: of any member. data: what `method.init` makes a state of the right shapes of.
    Raises:
      InputError: there is no checkpoint that can be read.
    """
    state = jax.jit(method.init)(jax.random.key(config.seed), data)
    if not config.num_steps:
        return state, 0
    many = len(population.members(config))
    states = jax.tree.map(lambda a: np.stack([a] * many), state)
    for name in (BEST, RECENT):
        if not (folder / name).is_dir():
            continue
        with contextlib.closing(checkpoint.open_manager(folder / name, keep=KEEP[name])) as manager:
            states, record = checkpoint.restore_or_init(manager, states)
        if record:
            break
    else:
        raise InputError(f'{folder} holds no checkpoint: train first')
    if many == 1:
        return population.take(states, 0), 0
    sign = 1 if method.measure.larger_is_better else -1
    result = files.read_json(folder / 'result.json') or {}
    best = result.get('foremost', Progress.resumed(many, sign, record).best_member())
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


class TrainedRun:
    """A run and what it has made: `anyshot_jax.load(workdir)`, and what `loop.run` returns.

    run = anyshot_jax.load('runs/mine')
    run.embed(x), run.predict(episode), run.params, run.config, run.result, run.history

    Config, method and state are read when they are first asked for.
    """

    def __init__(self, workdir: str | Path, means: Mapping[str, float] | None = None):
        self.workdir = files.folder(workdir)
        self._means = means

    def __repr__(self) -> str:
        return f'TrainedRun({str(self.workdir)!r})'

    @cached_property
    def _trained(self) -> Trained:
        return load(self.workdir)

    @property
    def means(self) -> dict[str, float]:
        """The mean of each value on the test; {} where the run has none yet."""
        if self._means is not None:
            return dict(self._means)
        return {name: v['mean'] for name, v in self.result.get('values', {}).items()}

    @property
    def result(self) -> dict[str, Any]:
        """result.json: values with intervals, step, seconds, versions; {} where there is none."""
        return files.read_json(self.workdir / 'result.json') or {}

    @property
    def history(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl by step; `kind` is train or val."""
        path, lines = self.workdir / 'metrics.jsonl', []
        if path.exists():
            for line in path.read_bytes().decode(errors='replace').splitlines():
                with contextlib.suppress(json.JSONDecodeError):  # a kill may have cut the last one
                    lines.append(json.loads(line))
        return lines

    @property
    def config(self) -> ConfigDict:
        """Config of the member that is best on validation, if the run is a population."""
        return self._trained.config

    @property
    def method(self) -> Method:
        """Its functions are pure: method.predict(run.state, episode)."""
        return self._trained.method

    @property
    def state(self) -> TrainState:
        """State of the step that is best on validation."""
        return self._trained.state

    @property
    def params(self) -> Any:
        """The parameters in `state`."""
        return self.state.params

    @cached_property
    def _embed(self):
        return jax.jit(self.method.embed) if self.method.embed else None

    @cached_property
    def _predict(self):
        return jax.jit(self.method.predict) if self.method.predict else None

    def embed(self, x: Array) -> Array:
        """[N, D] float embeddings of items [N, ...] as the run's data have them.

        Raises:
          InputError: the method embeds no single items, or these are of another shape.
        """
        if self._embed is None:
            raise InputError(f'{self.config.method.name} has no embedding of single items')
        return embed_in_chunks(partial(self._embed, self.state), x)

    def predict(self, episode: Episode) -> Array:
        """Scores [W*Q, W] of an episode's queries, the largest is the answer.

        Raises:
          InputError: the method answers no episodes.
        """
        if self._predict is None:
            raise InputError(f'{self.config.method.name} answers no episodes')
        return np.asarray(self._predict(self.state, episode))


def embed_in_chunks(embed, x: Array) -> Array:
    """[N, D] of any number of items, in one compiled shape."""
    x = np.asarray(x)
    if x.ndim < 2 or not len(x):
        raise InputError(f'embed takes items [N, ...], got {x.shape}')
    return np.asarray(map_rows(embed, x, size=EMBED_CHUNK))


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
