"""Probes of the trained model for the report: tasks from the test classes, and their embeddings."""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from anyshot_jax.episodes.sampling import class_names, sample_episode
from anyshot_jax.runtime.devices import map_rows
from anyshot_jax.types import Array, Data, Dataset, Episode, Method, TrainState

Ask = Callable[[Any], np.ndarray]  # episode -> scores [W*Q, W]

# A report is bounded by what the net has to look at, in numbers (pixels x channels) over all tasks:
# counted work and not measured time, so that the same run gives the same page.
WORK_FIXED, WORK_SWEEP = 5e6, 12e6
MAP_CLASSES, MAP_ITEMS = 12, 20

_sample = jax.jit(sample_episode, static_argnames=('ways', 'shots', 'queries'))


class Pool(NamedTuple):
    """The test classes that have enough items, and the size of the tasks drawn from them."""

    dataset: Dataset
    x: np.ndarray
    shown: np.ndarray  # what to draw of every item: its image, where x are features of it
    names: tuple[str, ...]  # rotated classes included
    ways: int
    shots: int
    queries: int

    @classmethod
    def of(cls, data: Data, config: ConfigDict, images: Array | None = None) -> 'Pool | None':
        """The first of config.eval.tasks with shots, made smaller where the classes are small."""
        if 'test' not in data.roles:
            return None
        dataset, fields = data.roles['test'], config.get('eval', {})
        ways, shots = next((t for t in fields.get('tasks', ()) if t[1]), (5, 1))
        count = np.asarray(dataset.count)
        keep = np.flatnonzero(count > shots)
        if len(keep) * dataset.turns < 2:
            return None
        dataset = dataclasses.replace(
            dataset,
            offset=np.asarray(dataset.offset)[keep],
            count=count[keep],
            names=tuple(dataset.names[c] for c in keep),
            extras={},
        )
        return cls(
            dataset=dataset,
            x=np.asarray(dataset.x),
            shown=np.asarray(dataset.x if images is None else images),
            names=class_names(dataset),
            ways=min(ways, dataset.num_classes),
            shots=shots,
            queries=int(min(fields.get('queries', 15), count[keep].min() - shots)),
        )

    @property
    def size(self) -> str:
        """'5-way 1-shot'."""
        return f'{self.ways}-way {self.shots}-shot'

    @property
    def imaged(self) -> bool:
        """True if the items can be drawn."""
        return self.shown.ndim == 4 and self.shown.shape[-1] in (1, 3)

    def rows(self, class_id: int) -> np.ndarray:
        """The rows of x that hold a class."""
        base = class_id % len(self.dataset.offset)
        return self.dataset.offset[base] + np.arange(self.dataset.count[base])

    def items(self, class_id: int, rows: Array) -> np.ndarray:
        """Items of a class, turned when the class is a turned one."""
        return self._turned(self.x[rows], class_id)

    def first(self, class_id: int) -> np.ndarray:
        """Image of a class: its first item."""
        return self._turned(self.shown[self.rows(class_id)[:1]], class_id)[0]

    def _turned(self, x: np.ndarray, class_id: int) -> np.ndarray:
        quarter = class_id // len(self.dataset.offset)
        return np.rot90(x, quarter, axes=(1, 2)) if quarter else x


class Answers(NamedTuple):
    """The answers to E tasks."""

    class_id: np.ndarray  # [E, W]
    scores: np.ndarray  # [E, W, Q, W]

    @property
    def predicted(self) -> np.ndarray:
        """[E, W, Q] relative labels."""
        return self.scores.argmax(-1)


def asker(method: Method, state: TrainState) -> Ask:
    """method.predict of this state, compiled once for every shape of task."""
    assert method.predict
    predict = jax.jit(method.predict)

    def ask(episode):
        return np.nan_to_num(np.asarray(predict(state, episode), np.float64))

    return ask


def one_task(ask: Ask, test: Pool, config: ConfigDict) -> tuple[Episode, Answers]:
    """One task from the sampler that the evaluation uses, its items as they are drawn."""
    size = {'ways': test.ways, 'shots': test.shots, 'queries': test.queries}
    key = jax.random.key(int(config.get('seed', 0)))

    def task(x):  # the same rows, whatever the items
        episode = _sample(key, dataclasses.replace(test.dataset, x=x), **size)
        return jax.tree.map(np.asarray, episode)

    scores = ask(task(test.x)).reshape(1, test.ways, test.queries, test.ways)
    episode = task(test.shown)
    return episode, Answers(episode.class_id[None], scores)


def fixed_classes(ask: Ask, test: Pool, rng: np.random.Generator) -> Answers:
    """Many tasks of the same classes, with other examples each time."""
    chosen = np.sort(rng.choice(len(test.names), test.ways, replace=False))
    sets = np.tile(chosen, (_number(test, WORK_FIXED), 1))
    return _tasks(ask, test, rng.permuted(sets, axis=1), rng)  # no class has a place of its own


def every_class(ask: Ask, test: Pool, rng: np.random.Generator) -> Answers:
    """Tasks in which all test classes take part equally often, as far as the work allows it."""
    num, sets = len(test.names), []
    per_round = -(-num // test.ways)
    for _ in range(max(1, _number(test, WORK_SWEEP) // per_round)):
        order = rng.permutation(num)
        order = np.concatenate([order, order[: per_round * test.ways - num]])  # the last is filled
        sets.append(order.reshape(per_round, test.ways))
    return _tasks(ask, test, np.concatenate(sets)[: 2 * _number(test, WORK_SWEEP)], rng)


def _number(test: Pool, work: float) -> int:
    """Number of tasks that this much work allows."""
    items = test.ways * (test.shots + test.queries)
    return int(np.clip(work // (items * math.prod(test.x.shape[1:])), 20, 400))


def _tasks(ask: Ask, test: Pool, class_id: np.ndarray, rng: np.random.Generator) -> Answers:
    y = np.arange(test.ways, dtype=np.int32)
    scores = []
    for ids in class_id:
        picks = [rng.permutation(test.rows(c))[: test.shots + test.queries] for c in ids]
        x = np.stack([test.items(c, rows) for c, rows in zip(ids, picks, strict=True)])
        episode = Episode(
            x_s=x[:, : test.shots].reshape(-1, *x.shape[2:]),
            y_s=y.repeat(test.shots),
            x_q=x[:, test.shots :].reshape(-1, *x.shape[2:]),
            y_q=y.repeat(test.queries),
            class_id=ids.astype(np.int32),
        )
        scores.append(ask(episode).reshape(test.ways, test.queries, test.ways))
    return Answers(class_id, np.stack(scores))


def confusion(answers: Answers) -> tuple[list[int], np.ndarray]:
    """Confusion in tasks of the same classes: their ids, ascending, and [W, W], i called j.

    Rows sum to 1.
    """
    ids = np.unique(answers.class_id)
    called = np.take_along_axis(answers.class_id[:, :, None], answers.predicted, axis=1)
    matrix = [[(called[answers.class_id == i] == j).mean() for j in ids] for i in ids]
    return ids.tolist(), np.array(matrix)


class Hard(NamedTuple):
    """Accuracy of one class."""

    class_id: int
    right: int
    asked: int
    taken_for: int | None  # the class that its queries were called most often when wrong


def hardness(answers: Answers) -> list[Hard]:
    """All classes that took part, the hardest first."""
    called: dict[int, Counter[int]] = {}
    for ids, predicted in zip(answers.class_id, answers.predicted, strict=True):
        for c, labels in zip(ids, predicted, strict=True):
            called.setdefault(int(c), Counter()).update(ids[labels].tolist())
    rows = []
    for c, counts in called.items():
        wrong = [(-n, other) for other, n in counts.items() if other != c]
        rows.append(Hard(c, counts[c], counts.total(), min(wrong)[1] if wrong else None))
    return sorted(rows, key=lambda r: (r.right / r.asked, r.class_id))


def confidence(scores: np.ndarray) -> tuple[np.ndarray, str]:
    """Number beside an answer, and its name: a probability where the scores allow it."""
    if scores.min() >= 0 and scores.max() <= 1:
        sums_to_one = np.allclose(scores.sum(-1), 1, atol=1e-3)
        return scores, 'probability' if sums_to_one else 'score (0 to 100 %)'
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True), 'softmax of its scores'


class Map(NamedTuple):
    """A plane through the embeddings."""

    class_id: np.ndarray  # [K]
    points: list[np.ndarray]  # K of [n, 2]
    explained: float  # share of the variance that the plane holds
    dim: int


def embeddings(
    method: Method, state: TrainState, test: Pool, rng: np.random.Generator
) -> Map | None:
    """Test items of some classes on their two principal axes; None: not finite."""
    ids = np.sort(rng.choice(len(test.names), min(MAP_CLASSES, len(test.names)), replace=False))
    x = [test.items(c, rng.permutation(test.rows(c))[:MAP_ITEMS]) for c in ids]
    z = embed_rows(method, state, np.concatenate(x), rng)
    if not np.isfinite(z).all():
        return None
    z = z - z.mean(0)
    _, s, vt = np.linalg.svd(z, full_matrices=False)
    axes = np.zeros((2, z.shape[1]))
    axes[: len(vt[:2])] = vt[:2]
    # The sign of a singular vector is arbitrary; fixed here, so that the page is reproducible.
    axes *= np.where(axes[[0, 1], abs(axes).argmax(1)] < 0, -1, 1)[:, None]
    total = float((s**2).sum())
    points = np.split(z @ axes.T, np.cumsum([len(part) for part in x])[:-1])
    return Map(ids, points, float((s[:2] ** 2).sum()) / total if total else 0.0, z.shape[1])


def embed_rows(
    method: Method, state: TrainState, x: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """[N, D], in chunks of one size: one compilation, and memory that doesn't grow with N."""
    assert method.embed  # the caller asks only methods that have one
    embed = jax.jit(method.embed)
    chunk = int(np.clip(200_000 // max(1, math.prod(x.shape[1:])), 8, 128))
    # Mixed classes, and no chunk of copies: a net that normalises by its batch sees a fair one.
    order = rng.permutation(len(x))
    z = np.asarray(map_rows(partial(embed, state), x[order], size=chunk), np.float64)
    return z[np.argsort(order)].reshape(len(x), -1)
