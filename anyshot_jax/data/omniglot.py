"""Omniglot (Lake, Salakhutdinov, Tenenbaum, Science 2015): 1623 characters x 20 drawers, 105 x 105.

In the directory lies either `omniglot.npz` (packed bits, one row a drawing), or the official
`images_background` and `images_evaluation`, as folders or as .zip (read without extracting).
With source='tfds' it comes from a prepared tensorflow-datasets directory instead. All give the same
classes in the same order (by name, then by drawer; tfds keeps its own order within a class).

Ink is 255 on 0. Smaller sizes are averaged with Lanczos windows; published code did either this
(MAML) or took the nearest pixel (prototypical networks), which breaks thin strokes.

Splits: 'vinyals' is that of Vinyals et al. (2016) as published by J. Snell (1028 / 172 / 423
characters; the training set mixes both halves); 'lake' trains on the background half less the five
alphabets that both splits validate on (792 / 172), and tests on the evaluation half (659);
'lake30' trains on all thirty background alphabets, and every tenth character validates (868 / 96).
"""

import dataclasses
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from anyshot_jax.config import check_choices
from anyshot_jax.data.readers.locate import find_dir
from anyshot_jax.data.readers.omniglot import (
    SIDE,
    from_npz,
    from_png,
    from_tfds,
    png_sources,
    resized,
)
from anyshot_jax.data.readers.one_shot_runs import load_runs
from anyshot_jax.data.splits import split_items
from anyshot_jax.types import Data, InputError

DEFAULTS = {
    'source': 'auto',  # auto (npz, else png) | npz | png | tfds
    'size': 28,  # up to 105, the original
    'resample': 'lanczos',  # lanczos | nearest | box | bilinear | bicubic
    'split': 'vinyals',  # vinyals | lake | lake30
    'turns': 4,  # rotations that are classes of their own: in train,
    'turns_eval': 1,  # in val and test (the published Vinyals lists: 4)
    'runs': '',  # Lake's one-shot runs: a zip or folder, or the start of its name in the directory
    'complete': True,  # False: a part of the 1623 x 20 drawings will do
}

RUNS = "Lake's runs"  # what their accuracy is called
LAYOUT = 'omniglot.npz, or images_background and images_evaluation (folders or .zip)'

# fmt: off
BACKGROUND = (
    'Alphabet_of_the_Magi', 'Anglo-Saxon_Futhorc', 'Arcadian', 'Armenian',
    'Asomtavruli_(Georgian)', 'Balinese', 'Bengali',
    'Blackfoot_(Canadian_Aboriginal_Syllabics)', 'Braille', 'Burmese_(Myanmar)', 'Cyrillic',
    'Early_Aramaic', 'Futurama', 'Grantha', 'Greek', 'Gujarati', 'Hebrew',
    'Inuktitut_(Canadian_Aboriginal_Syllabics)', 'Japanese_(hiragana)', 'Japanese_(katakana)',
    'Korean', 'Latin', 'Malay_(Jawi_-_Arabic)', 'Mkhedruli_(Georgian)', 'N_Ko',
    'Ojibwe_(Canadian_Aboriginal_Syllabics)', 'Sanskrit', 'Syriac_(Estrangelo)', 'Tagalog',
    'Tifinagh',
)
EVALUATION = (
    'Angelic', 'Atemayar_Qelisayer', 'Atlantean', 'Aurek-Besh', 'Avesta', 'Ge_ez', 'Glagolitic',
    'Gurmukhi', 'Kannada', 'Keble', 'Malayalam', 'Manipuri', 'Mongolian',
    'Old_Church_Slavonic_(Cyrillic)', 'Oriya', 'Sylheti', 'Syriac_(Serto)', 'Tengwar',
    'Tibetan', 'ULOG',
)
# fmt: on
ALPHABETS = (*BACKGROUND, *EVALUATION)  # what extras['alphabet'] counts
VAL = ('Armenian', 'Bengali', 'Early_Aramaic', 'Hebrew', 'Mkhedruli_(Georgian)')
VINYALS_TEST = EVALUATION[EVALUATION.index('Kannada') :]  # and the last four of Gurmukhi


def load(config: ConfigDict) -> Data:
    """Data of uint8 [N, size, size, 1], names 'Alphabet/characterNN', extras alphabet [C] int32.

    With config.runs also RUNS, episodes [R, ...] of evaluation characters.

    Raises:
      InputError: nothing there, a damaged or incomplete file, an unknown field value.
    """
    known = {'source': ('auto', 'npz', 'png', 'tfds'), 'split': ('vinyals', 'lake', 'lake30')}
    check_choices(config, known, 'config.data')
    if not 1 <= config.size <= SIDE:
        raise InputError(f'config.data.size = {config.size}: need 1 to {SIDE}')
    if config.runs and config.split == 'vinyals':
        raise InputError(
            'config.data.runs are of evaluation characters, of which the split '
            f"{config.split!r} trains on some: set config.data.split='lake'"
        )
    runs = _find_runs(config) if config.runs else None
    if config.source == 'tfds':
        drawings = from_tfds(config.dir)
    else:
        path = find_dir(config.dir, 'omniglot', LAYOUT)
        npz = path if path.suffix == '.npz' else path / 'omniglot.npz'
        if config.source == 'npz' or (config.source == 'auto' and npz.is_file()):
            drawings = from_npz(npz)
        else:
            drawings = from_png(png_sources(path))
    x, label, names = resized(drawings, config.size, config.resample)
    _check(names, len(x), config.complete)
    alphabet = np.array([ALPHABETS.index(n.split('/')[0]) for n in names], np.int32)
    roles = [role_of(n, config.split) for n in names]
    turns = (config.turns, config.turns_eval)
    data = split_items(x, label, names, roles, extras={'alphabet': alphabet}, turns=turns)
    if runs is None:
        return data
    return dataclasses.replace(data, tasks={RUNS: load_runs(runs, config.size, config.resample)})


def _find_runs(config: ConfigDict) -> Path:
    path = Path(config.runs)
    if path.exists():
        return path
    inside = find_dir(config.dir, 'omniglot', LAYOUT)
    found = sorted(inside.glob(f'{path.name}*')) if inside.is_dir() else []
    if len(found) != 1:
        raise InputError(
            f'config.data.runs={config.runs!r}: {len(found)} such files in {inside}; name one, '
            'a zip or folder with runNN/class_labels.txt'
        )
    return found[0]


def role_of(name: str, split: str) -> str:
    """The role of character 'Alphabet/characterNN' in the split vinyals, lake or lake30."""
    alphabet, character = name.split('/')
    number = int(character.removeprefix('character'))
    if split == 'lake30' and alphabet in BACKGROUND:
        return 'train' if number % 10 else 'val'
    if alphabet in VAL:
        return 'val'
    if split != 'vinyals':
        return 'test' if alphabet in EVALUATION else 'train'
    last_of_gurmukhi = alphabet == 'Gurmukhi' and number >= 42
    return 'test' if alphabet in VINYALS_TEST or last_of_gurmukhi else 'train'


def _check(names: tuple[str, ...], num_items: int, complete: bool) -> None:
    for name in names:
        if name.split('/')[0] not in ALPHABETS:
            raise InputError(f'Omniglot has no alphabet {name.split("/")[0]!r}')
    if complete and (len(names), num_items) != (1623, 32460):
        raise InputError(
            f'{len(names)} characters with {num_items} drawings, but Omniglot has 1623 with 32460: '
            'complete the download (background and evaluation), or set config.data.complete=False'
        )
