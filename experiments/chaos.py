"""Ends commands at random moments and starts them again: python experiments/chaos.py [--count=50]

TERM, INT and KILL hit `main` (one device, two, a population), `predict` with its feature store,
and a sweep. After the last start every result has to be that of a call that nobody ended, bit by
bit, and no file may be left but named temporaries. A kill of a sweep has to end its trials.
Prints a table; exit code 1 if anything differs. CPU; needs the extra `app` for predict.
"""

import argparse
import hashlib
import json
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
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)
PATIENCE = 120.0  # seconds that a process, and what it has started, may take to end
IMAGES = 300  # of predict: more than two chunks of the feature store
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


class Target(NamedTuple):
    """A command that writes into a folder, and what of it has to be the same."""

    command: Callable[[Path], list[str]]
    outcome: Callable[[Path], object]
    env: dict[str, str] = {}  # noqa: RUF012 (never changed)


def main_job(*flags: str, devices: int = 1) -> Target:
    def command(folder: Path) -> list[str]:
        recipe = folder.parent / 'recipe.py'
        recipe.write_text(RECIPE)
        return ['anyshot_jax.main', f'--config={recipe}', *flags, f'--workdir={folder / "run"}']

    xla = f'--xla_force_host_platform_device_count={devices}'
    return Target(command, lambda folder: run_outcome(folder / 'run'), {'XLA_FLAGS': xla})


def run_outcome(workdir: Path) -> object:
    """The test's values, and the digests of all states that are kept."""
    result = json.loads((workdir / 'result.json').read_text())
    digests = {}
    for path in workdir.glob('*/*/progress/*'):
        if found := re.search(r'"digest": ?"(\w+)"', path.read_text(errors='replace')):
            digests[str(path.relative_to(workdir))] = found[1]
    metrics = [json.loads(x) for x in (workdir / 'metrics.jsonl').read_text().splitlines()]
    losses = [(m['step'], m['kind'], m.get('loss')) for m in metrics]
    return result['values'], digests, losses


def predict_job() -> Target:
    def command(folder: Path) -> list[str]:
        images = folder.parent / 'images'
        if not images.exists():
            rng = np.random.default_rng(0)
            for i in range(IMAGES + 6):
                path = images / ('query' if i >= 6 else f'support/{"ab"[i % 2]}') / f'{i}.png'
                path.parent.mkdir(parents=True, exist_ok=True)
                x = rng.integers(0, 256, (32, 32, 3)).astype(np.uint8) // (1 + i % 2)
                Image.fromarray(x).save(path)
        flags = [f'--support={images / "support"}', f'--query={images / "query"}']
        return ['anyshot_jax.predict', *flags, f'--out={folder / "out"}']

    def outcome(folder: Path) -> object:
        return hashlib.sha256((folder / 'out' / 'predictions.csv').read_bytes()).hexdigest()

    return Target(command, outcome)


def sweep_job() -> Target:
    def command(folder: Path) -> list[str]:
        recipe, file = folder.parent / 'recipe.py', folder.parent / 'sweep.py'
        recipe.write_text(RECIPE)
        fields = "{'optim.learning_rate': (0.01, 0.1)}"
        file.write_text(f'CONFIG = {str(recipe)!r}\nFIELDS = {fields}\n')
        return ['anyshot_jax.sweep', str(file), f'--workdir={folder / "sweep"}', '--jobs=1']

    def outcome(folder: Path) -> object:
        trials = sorted((folder / 'sweep' / 'trials').iterdir())
        return {t.name: run_outcome(t) for t in trials if not LEFT.search(t.name)}

    return Target(command, outcome)


TARGETS = {
    'main': main_job(),
    'main, 2 devices': main_job(devices=2),
    'main, population': main_job('--config.num_seeds=2'),
    'predict': predict_job(),
    'sweep': sweep_job(),
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
        [sys.executable, '-m', *target.command(folder)], env=env, cwd=folder,
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

    TensorBoard and the cache write as many files as there were starts; Orbax's have random names.
    """
    names = {str(p.relative_to(folder)) for p in folder.rglob('*') if p.is_file()}
    several = re.compile(r'tensorboard/|^cache/|log\.txt$|/\d+/state/')
    strange = [n for n in names - clean if not several.search(n)]
    return [n for n in strange if not any(LEFT.search(part) for part in Path(n).parts)]


def attack(name: str, target: Target, count: int, rng: np.random.Generator, root: Path) -> dict:
    """`count` signals, one to three in a row before each last start; what came of them."""
    root.mkdir(parents=True)
    begun = time.monotonic()
    first = start(target, root / 'whole')
    _, said = first.communicate()
    if first.returncode:
        sys.exit(f'{name}: {said}')
    cold = time.monotonic() - begun
    wanted = target.outcome(root / 'whole')
    clean = {str(p.relative_to(root / 'whole')) for p in (root / 'whole').rglob('*')}
    sent: dict[str, int] = {s.name: 0 for s in SIGNALS}
    wrong: list[str] = []
    over, number = 0, 0
    while sum(sent.values()) < count:
        folder, number = root / str(number), number + 1
        for _ in range(min(int(rng.integers(1, 4)), count - sum(sent.values()))):
            process = start(target, folder)
            time.sleep(float(rng.uniform(0, cold)))
            kind = SIGNALS[rng.integers(len(SIGNALS))]
            over += process.poll() is not None
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
        elif target.outcome(folder) != wanted:
            wrong.append(f'{folder.name}: another result')
        wrong += [f'{folder.name}: litter {n}' for n in litter(folder, clean)]
    return {'sent': sent, 'over': over, 'folders': number, 'wrong': wrong}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
    parser.add_argument('--count', type=int, default=50, help='signals to each target')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--only', default='', help=f'of {"; ".join(TARGETS)}, with ; between')
    args = parser.parse_args()
    chosen = {k: t for k, t in TARGETS.items() if not args.only or k in args.only.split(';')}
    print('| target | TERM | INT | KILL | after its end | same in the end | wrong |')
    print('| --- | --- | --- | --- | --- | --- | --- |')
    failed: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        for i, (name, target) in enumerate(chosen.items()):
            rng = np.random.default_rng([args.seed, i])
            found = attack(name, target, args.count, rng, Path(scratch) / str(i))
            cells = [name, *found['sent'].values(), found['over']]
            cells += [f'{found["folders"]} folders', len(found['wrong'])]
            print('| ' + ' | '.join(map(str, cells)) + ' |', flush=True)
            failed += [f'{name}: {text}' for text in found['wrong']]
    if failed:
        sys.exit('\n'.join(failed))


if __name__ == '__main__':
    main()
