"""Seconds of any-shot refinement here and in a NumPy loop: python experiments/bench_refine.py

600 episodes (5-way, 5 real examples a class, 15 queries, features of 1280 numbers): the graph
embedding, 20 rounds of class centres, the plan. Here that is one jitted call over all devices; the
other is a loop over episodes of the same maths in float32 as one would write it in NumPy, with one
thread of its BLAS (more are slower at this size). Prints one line of JSON:

  jax_s, numpy_s   seconds, medians of the rounds, taken in turn
  ratio            median over the rounds of numpy_s / jax_s
  *_cpu_s          CPU time over all threads, to be read on a machine that others use, too
  difference       largest, of an entry of the plans; where two cosines are equal but for rounding,
                   another neighbour may be chosen and a plan differ by 0.1
  same_answers     share of queries; accuracy: of ours
"""

import json
import os
import statistics
import time
from functools import partial

os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')  # before NumPy reads it

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from anyshot_jax.ops.distance import cosine
from anyshot_jax.ops.graph import centre_groups, cosine_graph, graph_embedding
from anyshot_jax.ops.prototype import class_centres
from anyshot_jax.runtime.devices import map_over_devices, on_all_devices
from anyshot_jax.runtime.start import MAX_CPU_DEVICES, cores

_EPISODES = flags.DEFINE_integer('episodes', 600, 'Episodes in one call.')
_DIM = flags.DEFINE_integer('dim', 1280, 'Numbers of a feature vector.')
_NEIGHBOURS = flags.DEFINE_integer('neighbours', 4, 'Of the graph.')
_POWER = flags.DEFINE_integer('power', 1, 'Of the graph.')
_SELF_WEIGHT = flags.DEFINE_float('self_weight', 0.75, 'Of the graph.')
_COSINES = flags.DEFINE_enum(
    'cosines', 'each', ['each', 'once'],
    'Computed in each episode, or (by both) of all items once, from which episodes pick theirs.',
)  # fmt: skip
_CHUNK = flags.DEFINE_integer(
    'chunk', 0, 'Episodes whose centres move under one vmap; 0: 30 on a CPU, else all.'
)
_GRAPHS = flags.DEFINE_integer(
    'graphs',
    0,
    'Those of a chunk that become graphs at once; 0: 6 on a CPU (its caches), else all.',
)
_ROUNDS = flags.DEFINE_integer('rounds', 3, 'Rounds; each runs both once.')
WAYS, SHOTS, QUERIES, STEPS, STEP, SHARPNESS = 5, 5, 15, 20, 0.2, 10.0
CLASSES, PER_CLASS = 20, 40
IS_QUERY = np.repeat([0, 1], [WAYS * SHOTS, WAYS * QUERIES])
WEIGHT = np.repeat(np.eye(WAYS, dtype=np.float32), SHOTS, axis=0)


def episodes() -> tuple[np.ndarray, np.ndarray]:
    """Features [N, D] as a net's last ReLU gives them, and the rows [E, M] of every episode.

    What tells items and classes apart has few dimensions, so that accuracy and Sinkhorn's rounds
    are those of a texture descriptor on MSD's unseen classes (0.91 and 10 a plan).
    """
    rng = np.random.default_rng(0)
    cause = 1.6 * rng.normal(size=(CLASSES, 1, 8)) + rng.normal(size=(CLASSES, PER_CLASS, 8))
    x = cause @ rng.normal(size=(8, _DIM.value)) / np.sqrt(8)
    x = np.maximum(x + 0.5 * rng.normal(size=x.shape), 0)
    rows = []
    for _ in range(_EPISODES.value):
        items = [
            c * PER_CLASS + rng.permutation(PER_CLASS)[: SHOTS + QUERIES]
            for c in rng.permutation(CLASSES)[:WAYS]
        ]
        rows.append([*np.ravel([i[:SHOTS] for i in items]), *np.ravel([i[SHOTS:] for i in items])])
    return x.reshape(-1, _DIM.value).astype(np.float32), np.array(rows, np.int32)


def graph(x: jax.Array, rows: jax.Array) -> jax.Array:
    """The items [M] of an episode as the graph places them: [M, M].

    Args:
      x: [N, D] features, or with --cosines=once the cosines [N, N].
    """
    k, power, self_weight = _NEIGHBOURS.value, _POWER.value, _SELF_WEIGHT.value
    if _COSINES.value == 'once':
        x = x[rows[:, None], rows[None, :]]
        x = cosine_graph(x, neighbours=k, power=power, self_weight=self_weight)
    else:
        x = graph_embedding(x[rows], neighbours=k, power=power, self_weight=self_weight)
    return centre_groups(x, jnp.array(IS_QUERY), 2)


def plan(x: jax.Array) -> jax.Array:
    """[W*Q, W] of the items [M, M]."""
    parts = x[: WAYS * SHOTS], jnp.array(WEIGHT), x[WAYS * SHOTS :]
    return class_centres(*parts, rounds=STEPS, step=STEP, sharpness=SHARPNESS)[1]


def numpy_unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def refined_by_numpy(x: np.ndarray, rows: np.ndarray, counts: list[int]) -> np.ndarray:
    """The same; appends to `counts` the rounds that every plan took."""
    if _COSINES.value == 'once':
        sim = x[np.ix_(rows, rows)]
    else:
        x = numpy_unit(x[rows])
        sim = x @ x.T
    np.fill_diagonal(sim, 0)
    near = np.argpartition(-sim, _NEIGHBOURS.value - 1, axis=1)[:, : _NEIGHBOURS.value]
    edge = np.zeros(sim.shape, bool)
    np.put_along_axis(edge, near, True, axis=1)
    sim *= edge | edge.T
    scale = 1 / np.sqrt(sim.sum(0))
    walk = sim * scale[:, None] * scale
    walk[np.diag_indices(len(walk))] += np.float32(_SELF_WEIGHT.value)
    walk = np.exp(np.linalg.matrix_power(walk, _POWER.value))
    x = numpy_unit(walk / walk.sum(1, keepdims=True))
    x_s, x_q = (numpy_unit(part - part.mean(0)) for part in np.split(x, [WAYS * SHOTS]))

    def plan(centres):
        cost = (centres**2).sum(1) - 2 * x_q @ centres.T
        p = np.exp(-SHARPNESS * (cost - cost.min(1, keepdims=True)))
        total, count = p.sum(1), 0
        while True:
            p /= total[:, None]
            p *= QUERIES / p.sum(0)
            total, count = p.sum(1), count + 1
            if np.abs(total - 1).max() <= 1e-5 or count == 1000:
                counts.append(count)
                return p

    given, mass = WEIGHT.T @ x_s, WEIGHT.sum(0)[:, None]
    centres = given / mass
    for _ in range(STEPS):
        p = plan(centres)
        mean = (given + p.T @ x_q) / (mass + p.sum(0)[:, None])
        centres = centres + np.float32(STEP) * (mean - centres)
    return plan(centres)


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f'unexpected arguments: {argv[1:]}')
    jax.config.update('jax_num_cpu_devices', min(cores(), MAX_CPU_DEVICES))
    devices = jax.local_devices()
    x, rows = episodes()
    num = len(rows)
    on_cpu = devices[0].platform == 'cpu'
    chunk = _CHUNK.value or (30 if on_cpu else -(-num // len(devices)))
    graphs = _GRAPHS.value or (min(6, chunk) if on_cpu else chunk)
    if chunk % graphs:
        raise app.UsageError(f'--chunk={chunk} is no multiple of --graphs={graphs}')
    padded = np.resize(rows, (-(-num // chunk), chunk // graphs, graphs, rows.shape[1]))

    @jax.jit
    def together(x, rows):
        if _COSINES.value == 'once':
            x = cosine(x, x)

        def one(i, x, rows):
            z = jax.lax.map(partial(jax.vmap(graph, (None, 0)), x), rows[i])
            return jax.vmap(plan)(z.reshape(chunk, *z.shape[2:]))

        return map_over_devices(one, len(rows), devices, x, rows)

    placed = on_all_devices((x, padded))
    counts: list[int] = []

    def ours():
        return np.asarray(together(*placed)).reshape(-1, WAYS * QUERIES, WAYS)[:num]

    def theirs():
        unit = numpy_unit(x)
        shared = unit @ unit.T if _COSINES.value == 'once' else x
        return np.stack([refined_by_numpy(shared, r, counts) for r in rows])

    def seconds(call):
        wall, cpu = time.perf_counter(), time.process_time()
        value = call()
        return value, time.perf_counter() - wall, time.process_time() - cpu

    _, first_call, _ = seconds(ours)
    times = []
    for _ in range(_ROUNDS.value):
        mine, *ours_s = seconds(ours)
        found, *theirs_s = seconds(theirs)
        times.append((*ours_s, *theirs_s))
    wall, cpu, numpy_wall, numpy_cpu = (
        statistics.median(column) for column in zip(*times, strict=True)
    )
    answer = mine.argmax(-1)
    record = {
        'jax_s': round(wall, 4),
        'numpy_s': round(numpy_wall, 4),
        'ratio': round(statistics.median(t[2] / t[0] for t in times), 2),
        'jax_cpu_s': round(cpu, 4),
        'numpy_cpu_s': round(numpy_cpu, 4),
        'first_call_s': round(first_call, 2),
        'difference': float(np.abs(mine - found).max()),
        'same_answers': float(np.mean(answer == found.argmax(-1))),
        'accuracy': round(float(np.mean(answer == np.repeat(np.arange(WAYS), QUERIES))), 4),
        'sinkhorn_rounds': round(statistics.mean(counts), 1),
        'most_rounds': max(counts),
        'episodes': num,
        'dim': _DIM.value,
        'graph': [_NEIGHBOURS.value, _POWER.value, _SELF_WEIGHT.value],
        'cosines': _COSINES.value,
        'chunk': [chunk, graphs],
        'num_devices': len(devices),
        'device': devices[0].device_kind,
        'jax': jax.__version__,
        'load': round(os.getloadavg()[0], 1),
    }
    print(json.dumps(record))


if __name__ == '__main__':
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    app.run(main)
