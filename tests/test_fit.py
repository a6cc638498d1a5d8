"""What an accelerator is given at once, and which devices a batch goes to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anyshot_jax import target
from anyshot_jax.runtime import devices as places
from anyshot_jax.runtime import live
from anyshot_jax.training import fit, loop
from anyshot_jax.types import InputError

pytestmark = pytest.mark.slow


def test_bytes_that_live_at_once_by_hand():
    """x [100] float32 is given. y and z live together, w follows when y is not needed any more."""

    def f(x):
        y = x + 1  # 400
        z = jnp.sin(y)  # 800 with y
        w = y * z  # 1200
        return w.sum()  # 404: y and z are gone

    assert live.peak(f, jnp.zeros(100)) == 1200
    # A loop needs what its body needs, once, beside what it stacks.
    looped = lambda x: jax.lax.map(f, x)
    assert 1200 <= live.peak(looped, jnp.zeros((50, 100))) <= 1200 + 2 * 50 * 4 + 100


def test_the_largest_parts_that_fit():
    """10 bytes a unit and member, 5 beside them."""
    tried = []

    def measure(sizes):
        tried.append(dict(sizes))
        return 5 + 10 * sizes['member_chunk'] * sizes['task_chunk'], 'program'

    largest = lambda limit: fit.largest(measure, {'member_chunk': 6, 'task_chunk': 8}, limit)
    assert largest(485) == ({'member_chunk': 6, 'task_chunk': 8}, 485, 'program')
    assert largest(250)[0] == {'member_chunk': 3, 'task_chunk': 8}
    assert largest(50)[0] == {'member_chunk': 1, 'task_chunk': 4}
    assert len(tried) < 10  # a compilation each
    with pytest.raises(InputError, match='one unit at once needs 15 bytes, but 14 bytes'):
        largest(14)


def test_a_compiler_without_room_is_no_program():
    measure = lambda sizes: (0, None) if sizes['task_chunk'] > 2 else (7, 'program')
    assert fit.largest(measure, {'task_chunk': 16}, 10)[0] == {'task_chunk': 2}
    with pytest.raises(InputError, match='at once needs more than its compiler finds room for'):
        fit.largest(lambda sizes: (0, None), {'task_chunk': 4}, 10)


@pytest.mark.parametrize(('batch', 'count'), [(8, 4), (6, 3), (5, 1), (0, 4)])
def test_the_most_devices_over_which_a_batch_divides(monkeypatch, batch, count):
    monkeypatch.setattr(jax, 'devices', lambda: ['a', 'b', 'c', 'd'])
    assert places.for_batch(batch) == ['a', 'b', 'c', 'd'][:count]


def test_results_are_read_one_late():
    """On an accelerator a result is handed on when the next one has been started; all come."""
    log = []

    def started():
        for i in range(3):
            log.append(f'start {i}')
            yield i

    def read():
        for i in places.one_ahead(started()):
            log.append(f'read {i}')
        return log

    assert read() == ['start 0', 'read 0', 'start 1', 'read 1', 'start 2', 'read 2']
    log.clear()
    with target.written_for('gpu'):
        assert read() == ['start 0', 'start 1', 'read 0', 'start 2', 'read 1', 'read 2']


def test_a_batch_of_evaluation_is_one_by_one(monkeypatch):
    """The same values by vmap in parts of three, with a remainder, as alone."""
    x = places.on_all_devices(jnp.arange(12.0))
    one = lambda i, x: (x[i] ** 2, i)
    call = lambda: jax.jit(lambda x: places.map_over_devices(one, 7, jax.devices(), x))(x)
    want = jax.tree.map(np.asarray, call())
    with target.written_for('gpu'):
        monkeypatch.setattr(places, 'AT_ONCE', 3)
        assert places.at_once(one, 4, x) == 3
        jax.tree.map(np.testing.assert_array_equal, call(), want)
        monkeypatch.setattr(places, 'free_bytes', lambda: 9)  # not even one fits: one
        assert places.at_once(one, 4, x) == 1


def test_a_run_as_on_an_accelerator_is_that_of_a_cpu(tiny_config, tmp_path, capsys):
    """Programs fitted, evaluation in parts, metrics read late: same run."""
    fields = {'log_every': 8, 'eval_every': 0, 'save_every': 8, 'batch_size': 3}
    config = lambda: tiny_config('maml', 'conv4', **fields)
    want = loop.run(config(), tmp_path / 'cpu')
    assert 'divides over 1 of 2 devices: the others stay idle' in capsys.readouterr().out
    with target.written_for('tpu'):
        got = loop.run(config(), tmp_path / 'accelerator')
    np.testing.assert_allclose(list(got.means.values()), list(want.means.values()), atol=0.05)
    lines = [(tmp_path / n / 'metrics.jsonl').read_text().split() for n in ('cpu', 'accelerator')]
    assert len(lines[0]) == len(lines[1])
    assert lines[0][:2] == lines[1][:2]


@pytest.mark.parametrize('wanted', [None, [6, 1, 4, 1, 3]], ids=['all', 'some'])
def test_rows_are_streamed(wanted):
    """Of two arrays of seven rows, two rows a device at once: what NumPy gives, in that order."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(7, 3)).astype(np.float32), rng.integers(0, 9, 7)
    rows = None if wanted is None else np.array(wanted)
    function = lambda p, x, q: {'sum': p * x[0].sum(1) + q, 'b': x[1]}
    parts = list(
        places.stream_rows(function, np.float32(2), (a, b), np.float32(1), size=2, rows=rows)
    )
    order = np.concatenate([own for own, _ in parts])
    np.testing.assert_array_equal(order, np.arange(7) if wanted is None else wanted)
    found = {k: np.concatenate([f[k] for _, f in parts]) for k in ('sum', 'b')}
    np.testing.assert_allclose(found['sum'], 2 * a[order].sum(1) + 1, rtol=1e-5)
    np.testing.assert_array_equal(found['b'], b[order])
