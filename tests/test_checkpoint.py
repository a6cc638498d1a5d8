"""Checkpoints that are damaged in every way a disk can think of."""

import contextlib
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from anyshot_jax.storage import files
from anyshot_jax.training import checkpoint, loop
from anyshot_jax.types import InputError, TrainState

pytestmark = pytest.mark.usefixtures('swept')


def state_of(step, width=300):
    """A state with all that an optimiser and a batch norm may keep: empty nodes, nested tuples."""
    rng = np.random.default_rng(step)
    normal = lambda *shape: rng.normal(size=shape).astype(np.float32)
    return TrainState(
        step=np.int32(step),
        params={'a': {'kernel': normal(width, 7), 'bias': normal(7)}, 'b': normal(1)},
        opt_state=((), (np.int32(step), {'a': normal(width, 7)}), None),
        extra={},
    )


def assert_same(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    jax.tree.map(np.testing.assert_array_equal, got, want)


@pytest.fixture
def manager(tmp_path):
    with contextlib.closing(checkpoint.open_manager(tmp_path / 'checkpoints', keep=2)) as manager:
        yield manager


@pytest.fixture
def saved(manager):
    """The folder in which the checkpoints 1, 2, 3 were saved; two are kept."""
    for step in (1, 2, 3):
        checkpoint.save(manager, step, state_of(step), {'best': step / 10, 'stale': step})
    return Path(manager.directory)


def restore(folder, width=300):
    """What another process would find."""
    with contextlib.closing(checkpoint.open_manager(folder, keep=2)) as manager:
        return checkpoint.restore_or_init(manager, jax.device_put(state_of(0, width)))


def largest(folder):
    return max((f for f in folder.rglob('*') if f.is_file()), key=lambda f: f.stat().st_size)


def test_nothing_there(tmp_path):
    state, progress = restore(tmp_path / 'new')
    assert_same(state, state_of(0))
    assert progress == {}


def test_the_newest_comes_back_bit_by_bit(saved):
    state, progress = restore(saved)
    assert_same(state, state_of(3))
    assert progress == {'best': 0.3, 'stale': 3}
    assert sorted(p.name for p in saved.iterdir()) == ['2', '3']


def test_infinite_progress_survives(manager):
    checkpoint.save(manager, 1, state_of(1), {'best': -np.inf})
    assert restore(manager.directory)[1] == {'best': -np.inf}


def cut_in_half(folder):
    file = largest(folder)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip_a_byte(folder):
    file = largest(folder)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def empty_every_file(folder):
    for file in folder.rglob('*'):
        if file.is_file():
            file.write_bytes(b'')


def lose_the_largest_file(folder):
    largest(folder).unlink()


def lose_everything(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def lose_the_progress(folder):
    shutil.rmtree(folder / 'progress')


def spoil_the_progress(folder):
    (folder / 'progress' / 'metadata').write_text('{"best": ')


DAMAGES = [cut_in_half, flip_a_byte, empty_every_file, lose_the_largest_file, lose_everything,
           lose_the_progress, spoil_the_progress]  # fmt: skip


@pytest.mark.parametrize('damage', DAMAGES)
def test_a_damaged_one_falls_back_to_the_one_before(saved, damage, caplog):
    damage(saved / '3')
    state, progress = restore(saved)
    assert_same(state, state_of(2))
    assert progress['stale'] == 2
    assert f'checkpoint {saved}/3 cannot be used' in caplog.text
    assert list(saved.parent.glob('unusable-3-*/3'))  # moved aside, not deleted


def test_after_falling_back_saving_goes_on(saved, manager):
    """The manager that fell back from 6 to 3 saves 5 (a SIGTERM came), then 6 again, then 7."""
    checkpoint.save(manager, 6, state_of(6), {'stale': 6})
    cut_in_half(saved / '6')
    with contextlib.closing(checkpoint.open_manager(saved, keep=2)) as manager:
        checkpoint.restore_or_init(manager, jax.device_put(state_of(0)))
        for step in (5, 6, 7):
            checkpoint.save(manager, step, state_of(step), {'stale': step})
            assert_same(restore(saved)[0], state_of(step))


def test_all_damaged_starts_over_and_deletes_nothing(saved, caplog):
    for step in (2, 3):
        cut_in_half(saved / str(step))
    with contextlib.closing(checkpoint.open_manager(saved, keep=2)) as manager:
        state, progress = checkpoint.restore_or_init(manager, jax.device_put(state_of(0)))
        assert_same(state, state_of(0))
        assert progress == {} and not list(manager.all_steps())
        assert caplog.text.count('cannot be used') == 2
        checkpoint.save(manager, 1, state_of(1), {'stale': 1})  # smaller than those before
    assert_same(restore(saved)[0], state_of(1))
    assert sorted(p.name for p in saved.parent.glob('unusable-*/*')) == ['2', '3']


def test_one_of_other_shapes_is_foreign(saved, caplog):
    """Checkpoint 3 is from another net."""
    foreign = saved.parent / 'foreign'
    with contextlib.closing(checkpoint.open_manager(foreign, keep=2)) as manager:
        checkpoint.save(manager, 3, state_of(3, width=5), {'stale': 3})
    shutil.rmtree(saved / '3')
    shutil.copytree(foreign / '3', saved / '3')
    assert_same(restore(saved)[0], state_of(2))
    assert 'cannot be used' in caplog.text


def test_one_of_other_parameters_is_foreign(saved, caplog):
    foreign = saved.parent / 'foreign'
    state = state_of(3)
    state = state.replace(params={'c': state.params['b'], 'a': state.params['a']})
    with contextlib.closing(checkpoint.open_manager(foreign, keep=2)) as manager:
        checkpoint.save(manager, int(state.step), state, {'stale': 3})
    shutil.rmtree(saved / '3')
    shutil.copytree(foreign / '3', saved / '3')
    assert_same(restore(saved)[0], state_of(2))
    assert 'cannot be used' in caplog.text


@pytest.mark.parametrize('newest_is_whole', [True, False])
def test_pieces_that_a_kill_left_of_an_older_one(saved, newest_is_whole):
    """A kill came while 1 was being removed."""
    shutil.copytree(saved / '2', saved / '1')
    shutil.rmtree(saved / '1' / 'state')
    if not newest_is_whole:
        cut_in_half(saved / '3')
    with contextlib.closing(checkpoint.open_manager(saved, keep=2)) as manager:
        checkpoint.drop_older(manager, jax.device_put(state_of(0)), keep=2)
    left = ['2', '3'] if newest_is_whole else ['1', '2', '3']
    assert sorted(p.name for p in saved.iterdir()) == left


def test_a_run_leaves_no_pieces_of_an_older_one(tiny_config, tmp_path):
    """Killed when all was trained, and an older best was being removed."""
    loop.run(tiny_config(), tmp_path)
    (best,) = (tmp_path / 'best').iterdir()
    shutil.copytree(best, tmp_path / 'best' / '1')
    shutil.rmtree(tmp_path / 'best' / '1' / 'state')
    for name in ('result.json', 'report.html'):
        (tmp_path / name).unlink()
    loop.run(tiny_config(), tmp_path)
    assert list((tmp_path / 'best').iterdir()) == [best] and (tmp_path / 'result.json').exists()


def test_saving_the_same_step_again_replaces_it(saved, manager):
    changed = state_of(3).replace(extra={})
    changed.params['b'][:] = 5
    checkpoint.save(manager, int(changed.step), changed, {'stale': 30})
    state, progress = restore(saved)
    assert_same(state, changed)
    assert progress['stale'] == 30


def test_debris_of_a_kill_in_mid_save_is_no_checkpoint(saved):
    debris = saved / '4.orbax-checkpoint-tmp-1234'
    shutil.copytree(saved / '3', debris)
    cut_in_half(debris)
    assert_same(restore(saved)[0], state_of(3))


def test_a_failing_save_says_where_to_go_on(saved, manager):
    (saved / '4.orbax-checkpoint-tmp').write_text('')
    shutil.rmtree(saved)
    saved.write_text('a file in its place')
    with pytest.raises(InputError, match=r'checkpoint of step 4 could not be written to .*goes on'):
        checkpoint.save(manager, 4, state_of(4), {})


def test_digest_sees_values_shapes_types_and_names():
    base = {'a': np.zeros(4, np.float32), 'b': np.ones(2, np.float32)}
    others = [
        {**base, 'a': np.array([0, 0, 0, -0.0], np.float32)},
        {**base, 'a': np.zeros((2, 2), np.float32)},
        {**base, 'a': np.zeros(4, np.int32)},
        {'c': base['a'], 'b': base['b']},
        {'a': base['b'], 'b': base['a']},
    ]
    digests = {checkpoint.digest(tree) for tree in (base, *others)}
    assert len(digests) == 6
    assert checkpoint.digest(jax.device_put(base)) == checkpoint.digest(base)


def test_write_text_replaces_whole_files(tmp_path):
    path = tmp_path / 'result.json'
    files.write_text(path, 'one')
    files.write_text(path, 'two')
    assert path.read_text() == 'two'
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(InputError, match=r'result\.json/a could not be written'):
        files.write_text(path / 'a', 'three')


def test_artifacts(tmp_path):
    arrays = {'train': np.arange(6).reshape(2, 3), 'scale': np.float32(2)}
    files.save_artifacts(tmp_path / 'artifacts.npz', jax.device_put(arrays))
    got = files.load_artifacts(tmp_path / 'artifacts.npz')
    jax.tree.map(np.testing.assert_array_equal, got, arrays)
    assert [p.name for p in tmp_path.iterdir()] == ['artifacts.npz']


def test_read_json(tmp_path):
    path = tmp_path / 'a.json'
    assert files.read_json(path) is None
    path.write_text(json.dumps({'a': 1}))
    assert files.read_json(path) == {'a': 1}
    for damaged in (b'{"a": ', b'\xff\xfe'):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r'a\.json is damaged .*restore or remove it'):
            files.read_json(path)
