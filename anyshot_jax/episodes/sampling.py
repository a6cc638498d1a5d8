"""Samplers that run inside jit, on a dataset that lives on the device."""

import dataclasses

import jax
import jax.numpy as jnp

from anyshot_jax.episodes import augment
from anyshot_jax.types import Array, Dataset, Episode, Sinusoids


def choose(key: Array, n: Array, k: int) -> Array:
    """k distinct integers, uniform over the ordered k-subsets of 0..n-1.

    Floyd's algorithm (Bentley & Floyd, "A sample of brilliance", 1987): the work depends on k and
    not on n, so that a class of 100,000 images costs what one of 20 does.

    Args:
      key: JAX key. n: [] integer >= k, may be traced. k: number of picks.
    Returns:
      [k] int32.
    """
    key_draw, key_order = jax.random.split(key)
    last = n - k + jnp.arange(k)
    draw = jax.random.randint(key_draw, (k,), 0, last + 1)

    def pick(i, chosen):
        taken = jnp.any(chosen == draw[i])
        return chosen.at[i].set(jnp.where(taken, last[i], draw[i]))

    chosen = jax.lax.fori_loop(0, k, pick, jnp.full((k,), -1, jnp.int32))
    # Floyd's subset is uniform, its order is not: late picks are large. Support and query would
    # differ.
    return jax.random.permutation(key_order, chosen)


def choose_within(key: Array, kind: Array, k: int) -> Array:
    """k distinct classes of one kind, which is that of a class drawn uniformly.

    Args:
      kind: [C] integers 0..; kinds with fewer than k classes are never drawn.
    Returns:
      [k] int32 in random order.
    """
    keys, kind = jax.random.split(key), jnp.asarray(kind)
    draw = lambda key, allowed: jnp.where(allowed, jax.random.uniform(key, kind.shape), -1)
    size = jnp.sum(kind[:, None] == kind[None, :], -1)
    first = jnp.argmax(draw(keys[0], size >= k))
    return jax.lax.top_k(draw(keys[1], kind == kind[first]), k)[1].astype(jnp.int32)


def sample_episode(
    key: Array, dataset: Dataset, *, ways: int, shots: int, queries: int, within: str = ''
) -> Episode:
    """One episode: `ways` classes, uniform; `shots` + `queries` different items of each, uniform.

    Args:
      key: JAX key. dataset: every class needs at least shots + queries items (`check` tells).
      within: a name in dataset.extras, of integers [C]: the classes are of one kind, such as of one
        alphabet, and turned alike.
    Returns:
      Episode with W * S support and W * Q query items.
    """
    key_class, key_item = jax.random.split(key)
    if within:
        keys = jax.random.split(key_class)
        turn = jax.random.randint(keys[1], (), 0, dataset.turns)
        class_id = choose_within(keys[0], dataset.extras[within], ways)
        class_id += turn * dataset.offset.shape[0]
    else:
        class_id = choose(key_class, dataset.num_classes, ways)
    base = class_id % dataset.offset.shape[0]
    pick = jax.vmap(choose, (0, 0, None))
    keys = jax.random.split(key_item, ways)
    item = pick(keys, dataset.count[base], shots + queries)
    x = dataset.x[dataset.offset[base][:, None] + item]  # [W, S+Q, ...]
    if dataset.turns > 1:
        x = jax.vmap(augment.turn)(x, class_id // dataset.offset.shape[0])
    label = jnp.arange(ways, dtype=jnp.int32)
    return Episode(
        x_s=x[:, :shots].reshape(-1, *x.shape[2:]),
        y_s=jnp.repeat(label, shots),
        x_q=x[:, shots:].reshape(-1, *x.shape[2:]),
        y_q=jnp.repeat(label, queries),
        class_id=class_id,
    )


def sample_function(key: Array, functions: Sinusoids, shots: int, queries: int) -> Episode:
    """One wave, and `shots` + `queries` points of it, uniform in x.

    The first `shots` points of a key are the same whatever their number, and so are the queries.
    """
    keys = jax.random.split(key, 4)
    between = lambda key, ends, *shape: jax.random.uniform(
        key, shape, minval=ends[0], maxval=ends[1]
    )
    amplitude, phase = between(keys[0], functions.amplitude), between(keys[1], functions.phase)
    points = lambda key, num: jax.vmap(lambda i: between(jax.random.fold_in(key, i), functions.x))(
        jnp.arange(num)
    )[:, None]
    x_s, x_q = points(keys[2], shots), points(keys[3], queries)
    y_s, y_q = (amplitude * jnp.sin(x - phase) for x in (x_s, x_q))
    return Episode(x_s, y_s, x_q, y_q, jnp.zeros((1,), jnp.int32))


def draw_apart(
    key: Array, dataset: Dataset, shots: int, given: Array | None = None
) -> tuple[Array, Array]:
    """Support items from different groups, and the queries that share no group with them.

    Near copies, such as photographs of one part, never stand on both sides of a task. All classes
    are in it.

    Args and Returns: those of `draw_support`, then of `queries_apart`.
    """
    support = draw_support(key, dataset, shots)
    return support, queries_apart(dataset, support, given)


def draw_support(key: Array, dataset: Dataset, shots: int) -> Array:
    """Items of different groups for every class.

    Classes that share groups take theirs from the same ones, as far as they have items there, so
    that a support of k shots uses up k of these groups and not k for every class.

    Args:
      dataset: with `group`; a class with fewer than `shots` groups repeats its first pick.
    Returns:
      [C, shots], item rows: the first k are the draw of k shots.
    """
    num, classes = dataset.label.shape[0], dataset.offset.shape[0]
    keys, group = jax.random.split(key), jnp.asarray(dataset.group)
    together = group[:, None] == group[None]
    alike = together & (dataset.label[:, None] == dataset.label[None])
    # The item of each group that stands for it, and the order of the groups.
    lot = jax.random.uniform(keys[0], (num,))
    chosen = lot >= jnp.max(jnp.where(alike, lot[None], 0), 1)
    leader = jnp.argmax(together & chosen[None], 1)  # of a group, in its first class
    order = jnp.where(chosen, 1 + jax.random.uniform(keys[1], (num,))[leader], 0)
    of_class = dataset.label[None] == jnp.arange(classes)[:, None]
    place, support = jax.lax.top_k(jnp.where(of_class, order[None], -1), shots)
    return jnp.where(place > 0, support, support[:, :1])  # else an item of another class


def queries_apart(dataset: Dataset, support: Array, given: Array | None = None) -> Array:
    """The items that share no group with support [C, shots].

    Args:
      given: [C] bool, classes that the task is about (all if None); the others' groups stay free.
    Returns:
      [N, shots] bool: which items are queries of the task with the first 1, 2, ... shots.
    """
    group = jnp.asarray(dataset.group)
    about = jnp.ones(dataset.offset.shape[0], bool) if given is None else given
    shares = group[None, None] == group[support][..., None]  # [C, shots, N]
    shares = jnp.cumsum((shares & about[:, None, None]).any(0), axis=0) > 0
    return (~shares & about[dataset.label][None]).T


def first(episode: Episode, ways: int, shots: int) -> Episode:
    """The smaller episode of its first `ways` classes and their first `shots` shots."""
    total = episode.class_id.shape[0]

    def take(a, num):  # a [total * n, ...] -> [ways * num, ...]
        a = a.reshape(total, -1, *a.shape[1:])[:ways, :num]
        return a.reshape(-1, *a.shape[2:])

    queries = episode.y_q.shape[0] // total
    return Episode(
        x_s=take(episode.x_s, shots),
        y_s=take(episode.y_s, shots),
        x_q=take(episode.x_q, queries),
        y_q=take(episode.y_q, queries),
        class_id=episode.class_id[:ways],
    )


def expand_turns(dataset: Dataset) -> Dataset:
    """The same classes with the rotated ones as items of their own: turns = 1, N * turns items."""
    if dataset.turns == 1:
        return dataset
    num, classes = dataset.x.shape[0], dataset.offset.shape[0]
    turns = range(dataset.turns)
    return dataclasses.replace(
        dataset,
        x=jnp.concatenate([augment.turn(dataset.x, k) for k in turns]),
        label=jnp.concatenate([dataset.label + classes * k for k in turns]),
        offset=jnp.concatenate([dataset.offset + num * k for k in turns]),
        count=jnp.tile(dataset.count, dataset.turns),
        extras={k: jnp.tile(v, (dataset.turns,) + (1,) * (v.ndim - 1))
                for k, v in dataset.extras.items()},
        group=None if dataset.group is None else jnp.tile(dataset.group, dataset.turns),
        clean=None if dataset.clean is None else jnp.tile(dataset.clean, dataset.turns),
        mask=None if dataset.mask is None else jnp.concatenate(
            [augment.turn(dataset.mask[..., None], k)[..., 0] for k in turns]),
        names=class_names(dataset),
        texts=dataset.texts * dataset.turns,
        turns=1,
    )  # fmt: skip


def restrict(dataset: Dataset, classes: Array) -> Dataset:
    """Restricts what a sampler draws from to these classes; the items stay, of all classes.

    Args:
      classes: indices into offset and count.
    """
    return dataclasses.replace(
        dataset,
        offset=dataset.offset[classes],
        count=dataset.count[classes],
        extras={k: v[classes] for k, v in dataset.extras.items()},
        names=tuple(dataset.names[c] for c in classes),
        texts=tuple(dataset.texts[c] for c in classes) if dataset.texts else (),
    )


def class_names(dataset: Dataset) -> tuple[str, ...]:
    """A name for each class that a sampler can draw; rotated ones say by how much."""
    turned = [f' turned {90 * k}' if k else '' for k in range(dataset.turns)]
    return tuple(name + t for t in turned for name in dataset.names)


def draw_items(key: Array, dataset: Dataset, ways: int, num: int, most: int) -> tuple[Array, Array]:
    """Items of few classes: each of a class drawn uniformly among `ways`, none twice if it can be.

    Args:
      ways: <= C classes, drawn uniformly. most: at least the largest count of a class.
    Returns:
      rows [num] of the dataset and their classes [num], 0..ways-1.
    """
    keys = jax.random.split(key, 3)
    classes = choose(keys[0], dataset.offset.shape[0], ways)
    of = jax.random.randint(keys[1], (num,), 0, ways)
    count = dataset.count[classes]
    # A random order of every class's items, those that aren't there last.
    lot = jax.random.uniform(keys[2], (ways, most))
    order = jnp.argsort(jnp.where(jnp.arange(most)[None, :] < count[:, None], lot, 2.0), axis=1)
    turn = jnp.tril(of[:, None] == of[None, :], -1).sum(1)  # how many of its class came before
    return dataset.offset[classes[of]] + order[of, turn % count[of]], of
