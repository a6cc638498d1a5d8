"""Retrieval: every item asks for the others of its class, among all items of the role."""

from collections.abc import Callable, Collection
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from anyshot_jax.ops import metric
from anyshot_jax.runtime.devices import chunks, map_over_devices
from anyshot_jax.types import Array, Data, Dataset, InputError

ROWS_BYTES = 32 << 20  # similarities that a device holds at once, where the gallery is large
ROWS = 256
NO_ANSWER = 'queries without an answer'


class Items(NamedTuple):
    """Embedded items with what says which of them answer each other."""

    z: Array  # [N, D]
    label: Array  # [N] integers
    group: Array  # [N] integers: a query is not asked to find items of its own group


def items_of(dataset: Dataset) -> Items:
    """Items of a dataset of features; without groups an item only leaves itself out."""
    num = dataset.x.shape[0]
    group = np.arange(num) if dataset.group is None else dataset.group
    return Items(dataset.x.reshape(num, -1), dataset.label, group)


def check(data: Data, role: str) -> None:
    """Says before any work starts that no item of a role can be answered.

    Raises:
      InputError: the role is missing, or no class has two items of different groups.
    """
    if role not in data.roles:
        raise InputError(f'the data has no role {role!r}; it has {", ".join(data.roles)}')
    dataset = data.roles[role]
    label = np.asarray(dataset.label)
    group = np.arange(len(label)) if dataset.group is None else np.asarray(dataset.group)
    order = np.lexsort((group, label))
    label, group = label[order], group[order]
    if not ((label[1:] == label[:-1]) & (group[1:] != group[:-1])).any():
        raise InputError(
            f'config.eval.retrieval: no class of {role} has two items'
            + ('' if dataset.group is None else ' of different groups')
            + ', so that nothing can be asked for'
        )


def names(at: tuple[int, ...]) -> tuple[str, ...]:
    """Names of the values of `measures`, in the order of the result."""
    precisions = (f'precision@{k}' for k in at if k > 1)
    return ('mAP', 'mAP@R', 'R-precision', *(f'recall@{k}' for k in at), *precisions)


def measures(hits: metric.Hits, at: tuple[int, ...]) -> dict[str, Array]:
    """The values of one query, by name."""
    values = [metric.average_precision(hits), metric.average_precision_at_r(hits)]
    values += [metric.r_precision(hits), *(metric.recall_at(hits, k) for k in at)]
    values += [metric.precision_at(hits, k) for k in at if k > 1]
    return dict(zip(names(at), values, strict=True))


def evaluate(
    query: Items,
    gallery: Items,
    similarity: Callable,
    params: Any = None,
    *,
    measure: Callable,
    devices: Collection[jax.Device] | None = None,
) -> dict[str, np.ndarray]:
    """Scores every query against the whole gallery, a few rows of similarities at a time.

    Args:
      similarity: (params, a [N, D], b [M, D]) -> [N, M], the larger the nearer; compiled anew for
        every function given, as measure is. params: arrays for it.
      measure: metric.Hits of one query -> {name: value}.
      devices: what computes, each a share of the queries; the first one if not given.
    Returns:
      name -> [Q'] values of the queries that have an answer; and where others are left out
      NO_ANSWER -> [Q], 1 for those.
    Raises:
      InputError: no query, an empty gallery, or no query with an answer.
    """
    label, group = (np.asarray(a) for a in gallery[1:])
    query_label, query_group = (np.asarray(a) for a in query[1:])
    if not len(query_label) or not len(label):
        raise InputError(
            f'retrieval needs items: {len(query_label)} queries, a gallery of {len(label)}'
        )
    order = np.argsort(label, kind='stable')  # a class's items side by side
    classes, start, size = np.unique(label[order], return_index=True, return_counts=True)
    place = np.minimum(np.searchsorted(classes, query_label), len(classes) - 1)
    in_gallery = classes[place] == query_label
    # A query whose class the gallery lacks has a place for answers, and none in it.
    offset, count = start[place], np.where(in_gallery, size[place], 0)

    size_of_chunk = int(np.clip(ROWS_BYTES // (4 * len(label)), 1, ROWS))
    fill = np.stack([rows for _, rows in chunks(len(query_label), size_of_chunk)])
    devices = tuple(devices or jax.local_devices()[:1])
    arrays = (
        jnp.asarray(query.z)[fill],
        *(jnp.asarray(a[fill], jnp.int32) for a in (offset, count, query_group)),
        jnp.asarray(gallery.z)[order],
        jnp.asarray(group[order], jnp.int32),
    )
    most = int(min(size.max(), len(label)))
    values, answers = _scored(
        params, *arrays, similarity=similarity, measure=measure, most=most, devices=devices
    )
    flat = lambda a: np.asarray(a).reshape(-1, *a.shape[2:])[: len(query_label)]
    answered = flat(answers) > 0
    if not answered.any():
        raise InputError(
            f'no query has an answer in the gallery of {len(label)} items: retrieval needs two '
            'items of a class, and of different groups where there are groups'
        )
    result = {name: flat(v)[answered] for name, v in values.items()}
    return result if answered.all() else {**result, NO_ANSWER: (~answered).astype(np.float32)}


@partial(jax.jit, static_argnames=('similarity', 'measure', 'most', 'devices'))
def _scored(params, z, offset, count, own, gallery, group, *, similarity, measure, most, devices):
    """{name: [chunks, rows]} and how many answers each query has."""

    def chunk(i, params, z, offset, count, own, gallery, group):
        sims = similarity(params, z[i], gallery)

        def one(args):
            sim, offset, count, query_group = args
            place = jnp.arange(sim.shape[0])
            same = (place >= offset) & (place < offset + count)
            other = group != query_group
            near = jnp.minimum(offset + jnp.arange(most), sim.shape[0] - 1)
            answers = (jnp.arange(most) < count) & other[near]
            right = jnp.where(answers, sim[near], -jnp.inf)
            wrong = jnp.where(same | ~other, -jnp.inf, sim)
            hits = metric.hits(right, wrong, answers.sum())
            return measure(hits), hits.total

        # Row by row: a row of similarities fits the cache, all of them don't.
        return jax.lax.map(one, (sims, offset[i], count[i], own[i]))

    args = (params, z, offset, count, own, gallery, group)
    return map_over_devices(chunk, z.shape[0], devices, *args)
