"""Records and interfaces shared by the whole package.

Letters in shape comments: W ways, S shots, Q queries per class, C classes, N items, E episodes,
D feature dimension, A attribute dimension, P patches, B tasks in a batch; H, W, C of an image.

Words:
  support, query    the examples of a task's classes, and the items to classify.
  way, shot         classes of a task, and support items a class.
  episode, task     one support set with its queries; of a meta-batch also a pair or an item.
  label, y          the absolute class of an item, and its relative one inside an episode, 0..W-1.
  backbone, encoder a net that is trained, and a frozen one; either gives embeddings.
  prototype         the vector that stands for a class, such as its support's mean.
  rotated classes   those whose items are another class's turned by 90, 180 or 270 degrees.
  normal image      one without a defect (role good); a synthetic defect is drawn on one.
  rejection threshold  the score below which an item is of no known class.
  stage             a run of a recipe of several; it hands on what its method exports.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from flax import struct

Array = Any  # jax.Array or numpy.ndarray; the loaders return the latter, jit takes both


# What moves a terminal's cursor, colours it or turns its text round, and halves of characters.
_CONTROL = re.compile('[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]')


def printable(text: str) -> str:
    """The text with control characters written out, such as \\x1b; lines and tabs stay."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def is_text(value: Any) -> bool:
    """True for Unicode without lone halves of characters, which JSON can keep."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


class InputError(ValueError):
    """The user's data, config or files can't be used; the message says which and what to do.

    It may hold names of files and classes that come from anywhere: it is `printable`.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


class ArgumentError(InputError):
    """An argument cannot be used. Who took it from the user says under which name (config.under).

    Args:
      name: of the argument. problem: what follows it in the message, such as '=3 must be even'.
    """

    def __init__(self, name: str, problem: str):
        super().__init__(name, problem)
        self.name, self.problem = name, problem

    def __str__(self) -> str:
        return printable(f'{self.name}{self.problem}')


@struct.dataclass
class Dataset:
    """Items sorted by class, as arrays that live on the device.

    The items of class c are rows offset[c] : offset[c] + count[c]. With `turns` = 4 every class
    also stands for three more, its items rotated by 90, 180 and 270 degrees: class id c + C * k.
    """

    x: Array  # [N, H, W, C] uint8 images, or [N, D] float32 features
    label: Array  # [N] int32, 0..C-1, ascending
    offset: Array  # [C] int32
    count: Array  # [C] int32
    extras: Mapping[str, Array] = struct.field(default_factory=dict)  # e.g. attribute [C, A]
    group: Array | None = None  # [N] int32: near copies, which retrieval doesn't ask for; or none
    # [N] bool: whether the label is right, where that is known; only evaluation may look at it.
    clean: Array | None = None
    mask: Array | None = None  # [N, H, W] bool: where an item's defect is, or none
    names: tuple[str, ...] = struct.field(pytree_node=False, default=())  # C class names
    texts: tuple[str, ...] = struct.field(pytree_node=False, default=())  # C descriptions, or none
    turns: int = struct.field(pytree_node=False, default=1)  # 1 or 4
    # Where x comes from an encoder: the sizes of the parts of D, or () where that isn't known.
    parts: tuple[int, ...] = struct.field(pytree_node=False, default=())

    @property
    def num_classes(self) -> int:
        """Classes that a sampler can draw, rotated ones included."""
        return self.offset.shape[0] * self.turns


@struct.dataclass
class Sinusoids:
    """The functions amplitude * sin(x - phase), each number uniform in its range [2]."""

    amplitude: Array
    phase: Array
    x: Array


class Episode(NamedTuple):
    """One few-shot task. Rows stand class by class: y_s = 0..0 1..1 ..., likewise y_q.

    Of a function x and y are float32 [N, 1] and class_id is [0].
    """

    x_s: Array  # [W*S, ...]
    y_s: Array  # [W*S] int32, relative label 0..W-1
    x_q: Array  # [W*Q, ...]
    y_q: Array  # [W*Q] int32
    class_id: Array  # [W] int32, absolute (rotated classes: c + C * k)


@struct.dataclass
class Data:
    """The data of a run: returned by a loader, and given to every function of a method."""

    # By role: train, val, test (classes disjoint); base, web, good, ...
    roles: Mapping[str, Dataset] = struct.field(default_factory=dict)
    # Tasks that the data prescribe, [E, ...] under the name of their column in the result.
    tasks: Mapping[str, Episode] = struct.field(default_factory=dict)
    # Arrays that earlier stages of the recipe exported, by the stage's name.
    stages: Mapping[str, Mapping[str, Array]] = struct.field(default_factory=dict)
    # By role, instead of classes: functions to regress on.
    functions: Mapping[str, Sinusoids] = struct.field(default_factory=dict)
    # Mean images of drawn support of the role test (defects/residual.py): 'support', its rows
    # [draws, C, S], and '1-shot', '2-shot', ... [draws, C, ...], what the means are seen as.
    averaged: Mapping[str, Array] = struct.field(default_factory=dict)

    def __getitem__(self, role: str) -> Dataset:
        """The classes of a role, as `roles` has them."""
        return self.roles[role]


@struct.dataclass
class TrainState:
    """Everything that training changes; arrays only, so that a checkpoint is the state itself."""

    step: Array  # [] int32
    params: Any
    opt_state: Any
    extra: Any  # running batch-norm statistics and the like


class Measure(NamedTuple):
    """Measure of the values of `Method.evaluate`."""

    name: str
    percent: bool  # shares of 1, shown in per cent
    larger_is_better: bool


ACCURACY = Measure('accuracy', percent=True, larger_is_better=True)
SCORE = Measure('score', percent=True, larger_is_better=True)  # of retrieval, or of more than one
SQUARED_ERROR = Measure('mean squared error', percent=False, larger_is_better=False)


class Method(NamedTuple):
    """An algorithm: pure functions made by `methods/<name>.py: build(config, data)`.

    A method's file also holds DEFAULTS, its fields and their values in config.method. A new one:

        DEFAULTS = {'temperature': 1.0}

        def build(config, data):
            net = build_net(config.net)
            return episodic(config, data, init=..., embed=..., score=..., loss=...)

    `episodes/episodic.py` builds all nine for methods that learn from episodes.

    Args:
      init: (key, data) -> TrainState. Its `extra` is the method's own, any tree of arrays that
        training or fitting changes besides parameters: running batch statistics, a memory bank, a
        whitening, a frozen encoder's parameters.
      sample: (key, data) -> ONE task, pair or item of a batch; training vmaps it inside jit. None:
        nothing is trained.
      update: (state, batch [B, ...], keys [B]) -> (state, metrics {name: []}); inside a pmap, so
        that it averages its gradients over devices. None: nothing is trained.
      evaluate: (state, data, key, role) -> {column: raw values [E] of episodes or [Q] of queries}.
      predict: (state, episode) -> scores [W*Q, W], the largest is the answer. None: it answers no
        episodes.
      embed: (state, x [N, ...]) -> [N, D]. None: no item has features of its own.
      similarity: (state, a [N, D], b [M, D]) -> [N, M] of embeddings, for retrieval.
      export: (state, data, key) -> {name: array} for later stages of the recipe.
      measure: of the values of `evaluate`.
    """

    init: Callable
    sample: Callable | None
    update: Callable | None
    evaluate: Callable
    predict: Callable | None
    embed: Callable | None
    similarity: Callable | None = None
    export: Callable = lambda state, data, key: {}
    measure: Measure = ACCURACY


def from_arrays(
    x: Array,
    label: Array,
    names: tuple[str, ...] = (),
    *,
    extras: Mapping[str, Array] | None = None,
    group: Array | None = None,
    clean: Array | None = None,
    mask: Array | None = None,
    texts: tuple[str, ...] = (),
    turns: int = 1,
) -> Dataset:
    """Dataset of items in any order, sorted here (stably) by class.

    Args:
      x: [N, ...] items. label: [N] integers 0..C-1, each present at least once.
      names: C class names; '0', '1', ... when empty. extras: arrays with leading axis C.
      group: [N] integers, clean: [N] bool, mask: [N, H, W] bool, or none: see Dataset.
      texts: C descriptions, or none.
    Raises:
      InputError: empty, lengths that differ, or a class without items (named).
    """
    x, label = np.asarray(x), np.asarray(label)
    if not len(x) or len(x) != len(label):
        raise InputError(f'{len(x)} items and {len(label)} labels: need as many of both, and some')
    if mask is not None and len(mask) != len(x):
        raise InputError(f'{len(x)} items and {len(mask)} masks: need as many of both, or no mask')
    num = len(names) or int(label.max()) + 1
    names = names or tuple(str(c) for c in range(num))
    if label.min() < 0 or label.max() >= num:
        raise InputError(
            f'labels run {label.min()}..{label.max()}, but there are {num} class names'
        )
    count = np.bincount(label, minlength=num).astype(np.int32)
    if not count.all():
        raise InputError(f'class {names[int(np.argmin(count))]!r} has no items')
    if (np.diff(label) < 0).any():
        order = np.argsort(label, kind='stable')
        x, label = x[order], label[order]
        group = None if group is None else np.asarray(group)[order]
        clean = None if clean is None else np.asarray(clean)[order]
        mask = None if mask is None else np.asarray(mask)[order]
    return Dataset(
        x=x,
        label=label.astype(np.int32),
        offset=(np.cumsum(count) - count).astype(np.int32),
        count=count,
        extras=dict(extras or {}),
        group=None if group is None else np.asarray(group, np.int32),
        clean=None if clean is None else np.asarray(clean, bool),
        mask=None if mask is None else np.asarray(mask, bool),
        names=tuple(names),
        texts=tuple(texts),
        turns=turns,
    )


TEST_SEEN = 'test_seen'
# Every role that a loader of the package gives; no stage of a recipe may be called like one.
ROLES = ('train', 'val', 'test', TEST_SEEN, 'base', 'test_base', 'web', 'good', 'good_test')


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error message: the name that was probably meant, else all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean '{close[0]}'?" if close else f'; there are {", ".join(known)}'
