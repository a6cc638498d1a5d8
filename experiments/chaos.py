"""Ends commands at random moments and starts them again: python experiments/chaos.py [--count=50]

TERM, INT and KILL hit `main` (one device, two, a population), a sweep (one device, two), `predict`,
and the writer of its feature store. After the last start every result has to be that of a call that
nobody ended, bit by bit, and no file may be left but named temporaries. A kill of a sweep has to
end its trials. Writes results/interrupted.jsonl, a line a target; exit code 1 if anything differs.
CPU; predict needs the extra `app`.
"""

import argparse
import hashlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tables
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)
PATIENCE = 120.0  # seconds that a process, and what it has started, may take to end
IMAGES = 48  # queries of predict and of the store: a dozen shards and more
# What a kill may leave: our writer's, predict's and Orbax's temporaries, locks that lock nothing,
# and what a run has put aside.
LEFT = re.compile(r'^\.[^/]*\.tmp$|^\.unfinished-|^\..*lock$|orbax-checkpoint-tmp|^unusable-')
RECIPE = """
from anyshot_jax.config import defaults

def get_config(arg=''):
    config = defaults(method='protonet', data='synthetic', net='mlp')
    config.data.update({'kind': 'features', 'dim': 6, 'per_class': (6, 9)})
    config.net.update({'hidden': (8,), 'features': 6})
    config.update({'num_steps': 400, 'batch_size': 2, 'steps_per_call': 2})
    config.update({'log_every': 20, 'eval_every': 40, 'save_every': 20})
    config.train.update({'ways': 3, 'queries': 2})
    config.eval.update({'tasks': ((3, 1),), 'queries': 3, 'episodes': 20, 'val_episodes': 10})
    return config
"""


# Many small shards, so that signals hit some that are being written.
PREDICT = """
from anyshot_jax.classify import feature_store
from anyshot_jax.predict import cli

feature_store.CHUNK = feature_store.BATCH = 4
cli()
"""
STORE = """
import sys
from pathlib import Path
import numpy as np
from anyshot_jax.classify import feature_store
from anyshot_jax.data.readers.images import read_image

feature_store.CHUNK = 2
read = lambda content, name, odd: read_image(content, 8, 3, 10_000, name)
embed = lambda x: x.astype(np.float32).reshape(len(x), -1)
store = feature_store.FeatureStore('pixels', 'ab', 192, read, embed)
paths = sorted(Path(sys.argv[1]).iterdir())
found = [c.features for c in store.chunks(paths)]
np.save(sys.argv[2], np.concatenate(found))
"""


class Target(NamedTuple):
    """A command that writes into a folder, and what of it has to be the same."""

    share: float  # of the signals that each command gets
    command: Callable[[Path], list[str]]  # the arguments of Python
    outcome: Callable[[Path], object]
    env: dict[str, str] = {}  # noqa: RUF012 (never changed)


def devices(number: int) -> dict[str, str]:
    """An environment of so many devices, whose tiny programs are compiled quickly, and once."""
    flags = f'--xla_force_host_platform_device_count={number} --xla_backend_optimization_level=0'
    return {'XLA_FLAGS': flags, 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0'}


def main_job(*flags: str, on: int = 1) -> Target:
    def command(folder: Path) -> list[str]:
        recipe = folder.parent / 'recipe.py'
        recipe.write_text(RECIPE)
        job = ['-m', 'anyshot_jax.main', f'--config={recipe}', *flags]
        return [*job, f'--workdir={folder / "run"}']

    return Target(1, command, lambda folder: run_outcome(folder / 'run'), devices(on))


def run_outcome(workdir: Path) -> object:
    """The test's values, and the digests of the last state and the best.

    The state before the last is that of a SIGTERM if it came late enough, and a best step that a
    run comes by again is kept under another number.
    """
    result = json.loads((workdir / 'result.json').read_text())
    digests = {}
    for kind in ('checkpoints', 'best'):
        last = max(int(p.name) for p in (workdir / kind).iterdir() if p.name.isdigit())
        record = json.loads((workdir / kind / str(last) / 'progress' / 'metadata').read_text())
        digests[kind] = record['digest']  # the state has its step
    metrics = [json.loads(x) for x in (workdir / 'metrics.jsonl').read_text().splitlines()]
    losses = [(m['step'], m['kind'], m.get('loss')) for m in metrics]
    return result['values'], digests, losses


def images_in(folder: Path) -> Path:
    """A folder of images, the same at each call."""
    images = folder / 'images'
    if not images.exists():
        rng = np.random.default_rng(0)
        for i in range(IMAGES + 6):
            path = images / ('query' if i >= 6 else f'support/{"ab"[i % 2]}') / f'{i}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            x = rng.integers(0, 256, (32, 32, 3)).astype(np.uint8) // (1 + i % 2)
            Image.fromarray(x).save(path)
    return images


def predict_job() -> Target:
    def command(folder: Path) -> list[str]:
        images = images_in(folder.parent)
        flags = [f'--support={images / "support"}', f'--query={images / "query"}']
        out = folder / 'out'
        return ['-c', PREDICT, *flags, f'--out={out}', f'--save={out / "model.safetensors"}']

    files = ('predictions.csv', 'model.safetensors')
    return Target(1, command, lambda folder: [digest(folder / 'out' / f) for f in files])


def store_job() -> Target:
    def command(folder: Path) -> list[str]:
        query = images_in(folder.parent) / 'query'
        return ['-c', STORE, str(query), str(folder / 'features.npy')]

    return Target(1, command, lambda folder: digest(folder / 'features.npy'))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def sweep_job(on: int = 1) -> Target:
    def command(folder: Path) -> list[str]:
        recipe, file = folder.parent / 'recipe.py', folder.parent / 'sweep.py'
        recipe.write_text(RECIPE)
        fields = "{'optim.learning_rate': (0.01, 0.1)}"
        file.write_text(f'CONFIG = {str(recipe)!r}\nFIELDS = {fields}\n')
        flags = [f'--workdir={folder / "sweep"}', '--jobs=1']
        return ['-m', 'anyshot_jax.sweep', str(file), *flags]

    def outcome(folder: Path) -> object:
        trials = sorted((folder / 'sweep' / 'trials').iterdir())
        return {t.name: run_outcome(t) for t in trials if not LEFT.search(t.name)}

    return Target(1 / 2, command, outcome, devices(on))


TARGETS = {
    'sweep': sweep_job(),
    'sweep, 2 devices': sweep_job(on=2),
    'main': main_job(),
    'main, 2 devices': main_job(on=2),
    'main, population': main_job('--config.num_seeds=2'),
    'predict': predict_job(),
    'feature store': store_job(),
}


def start(target: Target, folder: Path) -> subprocess.Popen:
    """The command in a folder, whose cache of features is its own, and that of programs is not."""
    folder.mkdir(exist_ok=True)
    env = {
        **os.environ,
        'PYTHONPATH': str(ROOT),
        'JAX_PLATFORMS': 'cpu',
        'XDG_CACHE_HOME': str(folder / 'cache'),
        'JAX_COMPILATION_CACHE_DIR': str(folder.parent / 'compiled'),
        **target.env,
    }
    return subprocess.Popen(
        [sys.executable, *target.command(folder)], env=env, cwd=folder,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def still_running(folder: Path) -> list[str]:
    """The commands of processes that name the folder."""
    found = []
    for path in Path('/proc').glob('[0-9]*/cmdline'):
        try:
            text = path.read_bytes().replace(b'\0', b' ').decode(errors='replace')
        except OSError:  # it has ended
            continue
        if str(folder) in text and 'chaos.py' not in text:
            found.append(text)
    return found


def litter(folder: Path, clean: set[str]) -> list[str]:
    """Files that a call which nobody ended does not leave, without those that `LEFT` names.

    TensorBoard and the cache write as many files as there were starts; Orbax's have random names,
    and the number of a SIGTERM's state is any.
    """
    names = {str(p.relative_to(folder)) for p in folder.rglob('*') if p.is_file()}
    several = re.compile(r'tensorboard/|^cache/|log\.txt$|checkpoints/\d+/|/\d+/state/')
    strange = [n for n in names - clean if not several.search(n)]
    return [n for n in strange if not any(LEFT.search(part) for part in Path(n).parts)]


def attack(name: str, target: Target, count: int, rng: np.random.Generator, root: Path) -> dict:
    """`count` signals that hit it, one to five before each last start; what came of them."""
    root.mkdir(parents=True)
    for once in ('cold', 'whole'):  # programs are compiled in the first
        begun = time.monotonic()
        process = start(target, root / once)
        _, said = process.communicate()
        if process.returncode:
            sys.exit(f'{name}: {said}')
    seconds = time.monotonic() - begun
    wanted = target.outcome(root / 'whole')
    clean = {str(p.relative_to(root / 'whole')) for p in (root / 'whole').rglob('*')}
    sent: dict[str, int] = {s.name: 0 for s in SIGNALS}
    wrong: list[str] = []
    number = 0
    while sum(sent.values()) < count:
        folder, number = root / str(number), number + 1
        for _ in range(min(int(rng.integers(1, 6)), count - sum(sent.values()))):
            process = start(target, folder)
            time.sleep(float(rng.uniform(0, seconds)))
            kind = SIGNALS[rng.integers(len(SIGNALS))]
            if process.poll() is None:
                process.send_signal(kind)
                sent[kind.name] += 1
            try:
                process.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                wrong.append(f'{folder.name}: still there {PATIENCE:g} s after {kind.name}')
                process.kill()
        until = time.monotonic() + PATIENCE
        while (alive := still_running(folder)) and time.monotonic() < until:
            time.sleep(0.2)
        wrong += [f'{folder.name}: left running: {text}' for text in alive]
        last = start(target, folder)
        _, said = last.communicate()
        if last.returncode:
            wrong.append(f'{folder.name}: exit code {last.returncode}: {said[-300:]}')
        elif (found := target.outcome(folder)) != wanted:
            wrong.append(f'{folder.name}: another result: {found}, wanted {wanted}')
        wrong += [f'{folder.name}: litter {n}' for n in litter(folder, clean)]
        print(f'{name}: {sent}, {number} folders, wrong: {wrong}', flush=True)
    return {'sent': sent, 'hit': sum(sent.values()), 'folders': number, 'wrong': wrong}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
    parser.add_argument('--count', type=int, default=50, help='signals to each command')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--only', default='', help=f'of {"; ".join(TARGETS)}, with ; between')
    parser.add_argument('--out', type=Path, default=ROOT / 'experiments/results/interrupted.jsonl')
    args = parser.parse_args()
    chosen = {k: t for k, t in TARGETS.items() if not args.only or k in args.only.split(';')}
    lines = [x for x in tables.read_lines(args.out) if x['target'] not in chosen]
    failed: list[str] = []
    # Where a shell has it ignored, in its background, so would the commands.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as scratch:
        for i, (name, target) in enumerate(chosen.items()):
            rng = np.random.default_rng([args.seed, i])
            count = math.ceil(args.count * target.share)
            found = attack(name, target, count, rng, Path(scratch) / str(i))
            wrong = found.pop('wrong')
            if not wrong:
                lines.append({'target': name, **found, 'seed': args.seed})
                tables.write_lines(args.out, lines)
            failed += [f'{name}: {text}' for text in wrong]
            print(name, found, wrong, flush=True)
    if failed:
        sys.exit('\n'.join(failed))


if __name__ == '__main__':
    main()
