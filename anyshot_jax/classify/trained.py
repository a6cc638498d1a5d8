"""A method that was trained in a workdir, as it answers new classes from their images.

MAML and its kin adapt to the support, a relation network compares with it, prototypical networks
take its means: whatever the method's `predict` does with an episode.
"""

import importlib
import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image

from anyshot_jax import config as configs
from anyshot_jax.classify.frozen import BATCH, frozen
from anyshot_jax.classify.picture_input import READING, squares
from anyshot_jax.data.readers.images import Reading
from anyshot_jax.data.readers.notes import Notes
from anyshot_jax.runtime import fork
from anyshot_jax.runtime.devices import map_rows
from anyshot_jax.storage import files
from anyshot_jax.storage.folders import user_path
from anyshot_jax.training import workdir as workdirs
from anyshot_jax.training.trained_run import embed_in_chunks
from anyshot_jax.types import Array, Data, Episode, InputError, from_arrays

QUERIES = 128  # answered at once where there are many: a method may adapt anew for every batch
MAX_STATE = 8 << 30  # bytes of what a config asks for
ON_BLACK = ('omniglot', 'glyphs')  # their ink is bright on black


class Trained(NamedTuple):
    """A trained method; features are what its net takes, flat: pixels or an encoder's features."""

    predict: Callable  # (state, Episode) -> scores [Q, W], jitted
    embed_items: Callable | None  # (state, items [N, ...]) -> [N, D], jitted
    state: Any
    shape: tuple[int, ...]  # of an item
    invert: bool  # dark strokes on white are turned into bright ones on black
    encoder: str  # '': pixels
    ways: int  # classes that a task must have; 0: any number
    crop: str = 'centre'  # of the images that it was trained on

    @property
    def dim(self) -> int:
        return int(np.prod(self.shape))

    def features(
        self, items: Sequence[Any], how: Reading = READING, notes: Notes | None = None
    ) -> Array:
        """[N, dim] float32; raises InputError for an image that can't be read."""
        return self.features_and(items, lambda x: np.zeros((len(x), 0)), how, notes)[0]

    def features_and(
        self, items: Sequence[Any], also: Callable[[Array], Array], how: Reading = READING,
        notes: Notes | None = None,
    ):  # fmt: skip
        """(`features`, also(squares [n, S, S, 3]) of all); cropped as in training."""
        how = self.reading(how)
        if self.encoder:
            return frozen(self.encoder).features_and(items, also, how, notes)
        parts = []
        for start in range(0, max(len(items), 1), BATCH):
            x = np.asarray(squares(items[start : start + BATCH], self.shape[0], start, how, notes))
            parts.append((self.of_squares(x), also(x)))
        return tuple(np.concatenate(part) for part in zip(*parts, strict=True))

    def of_all(
        self, items: Sequence[Any], what: Callable[[Array], Array], how: Reading = READING
    ) -> Array:
        """what(squares [n, S, S, 3]) of all, without features."""
        how = self.reading(how)
        parts = range(0, max(len(items), 1), BATCH)
        found = (np.asarray(squares(items[i : i + BATCH], self.shape[0], i, how)) for i in parts)
        return np.concatenate([what(x) for x in found])

    def reading(self, how: Reading) -> Reading:
        """The same with the crop of the run."""
        return how._replace(crop=self.crop)

    def of_squares(self, x: Array) -> Array:
        """[N, dim] of [N, S, S, 3] uint8: pixels as the net takes them."""
        if self.shape[-1] == 1:
            grey = [np.asarray(Image.fromarray(one).convert('L')) for one in x]
            x = np.stack(grey)[..., None] if grey else x[..., :1]
        if self.invert:
            paper = np.median(x, (1, 2, 3), keepdims=True) if len(x) else 0
            x = np.where(paper > 127, 255 - x, x)
        return x.reshape(len(x), -1).astype(np.float32)

    def items(self, x: Array) -> Array:
        """Flat features [N, dim] as the net takes them, [N, ...]."""
        return x.reshape(-1, *self.shape).astype(np.float32 if self.encoder else np.uint8)

    def embed(self, x: Array) -> Array:
        """[N, D] float embeddings of flat features [N, dim] by the trained net.

        Raises:
          InputError: the method embeds no single items.
        """
        if self.embed_items is None:
            raise InputError("this run's method has no embedding of single items")
        return embed_in_chunks(partial(self.embed_items, self.state), self.items(x))

    def scores(self, x_s: Array, label: Array, num_classes: int, x_q: Array) -> Array:
        """[Q, C] of flat features, a batch of queries at a time.

        Raises:
          InputError: the method answers tasks of another number of classes only.
        """
        if self.ways not in (0, num_classes):
            raise InputError(
                f'this method was trained for tasks of {self.ways} classes, there are {num_classes}'
            )
        y = label.astype(np.int32)
        order = np.argsort(y, kind='stable')  # by class, as episodes are
        shots, ids = self.items(x_s[order]), np.arange(num_classes, dtype=np.int32)

        def answers(part):
            task = Episode(shots, y[order], self.items(part), np.zeros(len(part), np.int32), ids)
            return self.predict(self.state, task)

        if not len(x_q):
            return np.zeros((0, num_classes), np.float32)
        size = BATCH if len(x_q) <= BATCH else QUERIES  # two shapes only are ever compiled
        fork.check()
        return np.asarray(map_rows(answers, x_q, size=size))


def import_code(workdir: str) -> None:
    """Imports, which runs, the modules that a workdir's config names: --allow_code.

    Raises:
      InputError: there is no such module.
    """
    path = user_path(workdir) / 'config.json'
    for name in configs.user_modules(files.read_json(path) if path.is_file() else {}):
        try:
            importlib.import_module(name)
        except ImportError as e:
            raise InputError(f'{path} asks for the module {name}: {e}') from e


@cache
def trained(workdir: str) -> Trained:
    """The best step of a finished run.

    Raises:
      InputError: no run there, of several stages, of a method that answers no episodes, of parts
        of an encoder or data that images can't be made into, without a checkpoint, or whose config
        names code that is not the package's own.
    """
    folder = user_path(workdir)
    config = workdirs.read_config(folder).unlock()
    try:
        return _restored(config, folder)
    except InputError:
        raise
    except Exception as e:  # whatever a config that was tampered with leads to
        raise InputError(f'{folder} holds no run to use: {type(e).__name__}: {e}') from e


def _restored(config, folder: Path) -> Trained:
    if config.encoder_parts or config.features_from or config.residual.encoder:
        raise InputError(f'{folder} was trained on features that an image alone does not have')
    shape = _item_shape(config, folder)
    config.eval.within = config.train.within = ''
    config.eval.tasks = config.eval.tasks or ((2, 1),)
    method = configs.find('methods', config.method.name).build(config, _like(config, shape))
    if method.predict is None:
        raise InputError(f'{config.method.name} answers no episodes')
    data = _like(config, shape)
    shapes = jax.eval_shape(method.init, jax.random.key(0), data)
    net = sum(a.size * 4 for a in jax.tree.leaves(shapes))
    size = net * config.num_seeds * math.prod(len(values) for _, values in config.vary)
    if size > MAX_STATE:
        raise InputError(f'{folder}/config.json asks for states of {size:,} bytes')
    fork.started()
    state, _ = workdirs.restore(folder, config, method, data)
    ways = config.train.ways if config.method.get('head') == 'per_class' else 0
    invert = config.data.name in ON_BLACK and not config.encoder
    embed = jax.jit(method.embed) if method.embed else None
    return Trained(jax.jit(method.predict), embed, state, shape, invert, config.encoder, ways,
                   config.data.get('crop', 'centre'))  # fmt: skip


def _item_shape(config, folder: Path) -> tuple[int, ...]:
    if config.encoder:
        return (frozen(config.encoder).dim,)
    size = config.data.get('size', 0)
    if not size:
        raise InputError(
            f'{folder}: images cannot be made into {config.data.name} items, for config.data has '
            'no size: a loader of your own says the side of its square images in DEFAULTS as '
            'size, and their channels as channels'
        )
    return (size, size, config.data.get('channels', 1))


def _like(config, shape):
    """Data of that shape, enough for every task of the config; only its shape matters."""
    ways = max(config.train.ways, *(w for w, _ in config.eval.tasks))
    shots = max(config.train.shots, *(s for _, s in config.eval.tasks))
    queries = max(config.train.queries, config.eval.queries)
    num = ways * (shots + queries)
    if num * int(np.prod(shape, dtype=object)) > MAX_STATE:
        raise InputError(f'the config asks for tasks of {num:,} items {shape}')
    label = np.repeat(np.arange(ways), shots + queries)
    x = np.zeros((len(label), *shape), np.float32 if config.encoder else np.uint8)
    dataset = from_arrays(x, label)
    return Data({'train': dataset, 'val': dataset, 'test': dataset})
