"""The contract: what every file in methods/ must hold to. A new file is tested by being there."""

from contextlib import contextmanager
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from method_cases import CASES, KEY, OWN_TEST, Case, images, settle

from anyshot_jax import config as configs
from anyshot_jax.episodes import sampling
from anyshot_jax.episodes.episodic import embed_dataset, episode_accuracies, task_name
from anyshot_jax.runtime.devices import on_all_devices
from anyshot_jax.training import population
from anyshot_jax.training.step import check_used, make_step
from anyshot_jax.types import InputError, from_arrays

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module', params=CASES, ids=lambda c: '-'.join([c[0], *c[1]]))
def case(request):
    yield Case(*request.param)
    jax.clear_caches()  # a few programs at a time: of very many it takes a minute


@pytest.fixture
def trained(case):
    if not case.trains:
        pytest.skip('this method has nothing to train')
    return case


@contextmanager
def no_compilation():
    """Fails if XLA compiles anything inside."""
    compiled = []

    def note(event, *_, **__):
        if event == '/jax/core/compile/backend_compile_duration':
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        yield
    finally:
        jax.monitoring.unregister_event_duration_listener(note)
    assert not compiled


def assert_close(got, want, **tolerance):
    jax.tree.map(partial(np.testing.assert_allclose, **tolerance), got, want)


def test_init_is_finite_and_of_step_zero(case):
    assert int(case.init.step) == 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(case.init))


def test_same_key_same_init(case):
    other = jax.jit(case.method.init)(KEY, case.data)
    assert_close(other, case.init, rtol=0)


def test_what_may_vary_is_only_computed_with(trained):
    """Building, init and a step take the numbers of TRACED as traced ones: none decides by them."""
    config = trained.config.copy_and_resolve_references()
    with config.unlocked():
        config.num_steps = 1
        own = [p for p in population.traced(config) if p.startswith('method.')]
        config.vary = tuple((p, (float(config.method[p.partition('.')[2]]),)) for p in own)
    everyone = population.build(config, jax.device_get(trained.data))  # on the host, as in a run
    states = jax.tree.map(lambda a: a[None], trained.init)
    try:
        check_used(everyone, states, trained.data)
    except InputError as e:  # of a loss that this case doesn't have
        assert 'is not used by this run' in str(e)


@pytest.mark.parametrize('mode', ['inductive', 'transductive'])
def test_noise_is_classified_at_chance(case, mode):
    """Nothing but the items may tell the class: no order, no statistics, no label of a query."""
    if mode == 'transductive' and not case.normalises:
        pytest.skip('this method has no batch norm')
    evaluate = case.asked_in(mode).evaluate
    accuracies = {task: [] for task in case.config.eval.tasks}
    for seed in range(30):  # other noise each time: what one draw of it tells by luck is evened out
        got = evaluate(case.state, images(signal=0.0, seed=seed), jax.random.key(seed), case.role)
        for task in accuracies:
            accuracies[task].append(np.mean(got[task_name(*task)]))
    for (ways, _), of_seeds in accuracies.items():
        error = np.std(of_seeds, ddof=1) / np.sqrt(len(of_seeds))
        assert abs(np.mean(of_seeds) - 1 / ways) < 3.5 * error


def test_signal_is_found(case):
    """The counterpart of noise, for methods that have nothing to learn first."""
    if case.trains:
        pytest.skip('see test_overfits_one_batch')
    accuracy = np.asarray(case.method.evaluate(case.state, case.data, KEY, 'test')['3-way 1-shot'])
    assert accuracy.shape == (24,) and accuracy.mean() > 0.5


def test_overfits_one_batch(trained):
    """Items of no common look, which it has to learn by heart."""
    noise = images(signal=0.0)
    fixed = jax.jit(trained.method.sample)(KEY, noise)
    method = trained.build(**{'optim.name': 'adam', 'optim.learning_rate': 1e-2})
    method = method._replace(sample=lambda key, data: fixed)
    step = make_step(method, batch_size=2, steps_per_call=50)
    state, first = step(jax.jit(method.init)(KEY, noise), noise, KEY)
    for _ in range(3):
        state, last = step(state, noise, KEY)
    assert last['loss'][-1] < 0.1 * first['loss'][0]
    assert last['accuracy'][-1] == 1
    assert np.isfinite(last['grad_norm']).all()


def test_jit_changes_nothing(trained):
    """One update, compiled as a whole and operation by operation."""
    keys = jax.random.split(KEY, 2)
    batch = jax.jit(jax.vmap(trained.method.sample, (0, None)))(keys, trained.data)
    one = jax.tree.map(lambda a: a[None], (batch, keys))
    update = jax.vmap(trained.method.update, (None, 0, 0), axis_name='devices')
    state = jax.device_put(trained.state)
    assert_close(jax.jit(update)(state, *one), update(state, *one), rtol=1e-4, atol=1e-5)


def test_compiles_once(trained):
    """The second step, and the second evaluation, find everything compiled."""
    keys = list(jax.random.split(KEY, 3))
    state, data = on_all_devices((jax.tree.map(jnp.copy, trained.init), trained.data))
    state, _ = trained.step(state, data, keys[0])
    jax.block_until_ready(trained.method.evaluate(state, data, keys[0], 'test'))
    with no_compilation():
        for key in keys[1:]:
            state, _ = trained.step(state, data, key)
        jax.block_until_ready(trained.method.evaluate(state, data, key, 'test'))


def test_update_keeps_the_states_tree_shapes_and_types(trained):
    shapes = partial(jax.tree.map, lambda a: (a.shape, a.dtype))
    assert shapes(trained.state) == shapes(trained.init)
    assert int(trained.state.step) == 2
    moved = jax.tree.map(lambda a, b: (a != b).any(), trained.state.params, trained.init.params)
    # A bias before a batch norm has no effect, so it may stay where it was.
    assert any(jax.tree.leaves(moved))


def test_two_devices_are_one_device(trained):
    """The same four units: two on each of two devices, or all on one, one or four at a time."""
    assert len(jax.devices()) == 2
    for chunk in (1, 4):
        method = trained.build(task_chunk=chunk)
        step = make_step(method, batch_size=4, steps_per_call=2, devices=jax.devices()[:1])
        assert_close(trained.run(step), trained.after, rtol=1e-4, atol=1e-6)


def test_order_of_queries_does_not_matter(case):
    order = np.random.default_rng(0).permutation(9)
    scores, moved = case.predict(), case.predict(x_q=case.episode.x_q[order])
    assert scores.shape == (9, 3)
    np.testing.assert_allclose(moved, scores[order], rtol=1e-4, atol=1e-5)


def test_names_of_classes_do_not_matter(case):
    """Class c is called name[c] instead: its scores stand in that column."""
    if case.names_matter:
        pytest.skip('its classes start from weights of their own')
    name = np.array([2, 0, 1], np.int32)
    class_id = case.episode.class_id[np.argsort(name)]
    renamed = case.predict(y_s=name[case.episode.y_s], class_id=class_id)
    np.testing.assert_allclose(renamed[:, name], case.predict(), rtol=1e-4, atol=1e-5)


def test_predictions_do_not_know_the_answers(case):
    blind = case.predict(y_q=0 * case.episode.y_q, class_id=0 * case.episode.class_id)
    np.testing.assert_array_equal(blind, case.predict())


@pytest.mark.parametrize('mode', ['inductive', 'transductive'])
def test_evaluation_is_prediction_episode_by_episode(case, mode):
    """Inductive evaluation embeds a whole split once; that must not show."""
    if mode == 'transductive' and not case.normalises:
        pytest.skip('this method has no batch norm')
    method = case.asked_in(mode)
    got = method.evaluate(case.state, case.data, KEY, case.role)
    tasks = case.config.eval.tasks
    assert list(got) == [task_name(*task) for task in tasks]
    ways, shots = map(max, zip(*tasks, strict=True))
    draw = partial(sampling.sample_episode, ways=ways, shots=shots, queries=3)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(KEY, jnp.arange(24))
    whole = jax.jit(jax.vmap(draw, (0, None)))(keys, case.data.roles[case.role])
    predict = case.predictor if method is case.method else jax.jit(method.predict)
    for task in tasks:
        parts = jax.vmap(partial(sampling.first, ways=task[0], shots=task[1]))(whole)
        parts = jax.tree.map(np.asarray, parts)
        episodes = [jax.tree.map(lambda a, i=i: a[i], parts) for i in range(24)]
        right = [np.mean(predict(case.state, e).argmax(-1) == e.y_q) for e in episodes]
        np.testing.assert_allclose(got[task_name(*task)], right, atol=1e-6)


def test_transduction_is_a_switch_that_is_off(case):
    if not case.normalises:
        pytest.skip('this method has no batch norm')
    assert case.config.method.batch_norm != 'transductive'
    others = case.episode.x_q.copy()
    others[1:] = 0  # all queries but the first
    alone = case.predict()[0], case.predict(x_q=others)[0]
    np.testing.assert_allclose(*alone, rtol=1e-4, atol=1e-5)
    predict = jax.jit(case.asked_in('transductive').predict)
    episodes = case.episode, case.episode._replace(x_q=others)
    together = [predict(case.state, e)[0] for e in episodes]
    assert np.abs(together[0] - together[1]).max() > 1e-3
    with pytest.raises(InputError, match='batch_norm must be inductive or transductive'):
        case.build(**{'method.batch_norm': 'transduktive'})


def test_embedding_and_export(case):
    if case.method.embed is None:
        pytest.skip('it compares pairs, no item has features of its own')
    x = case.data.roles['test'].x
    z = jax.jit(case.method.embed)(case.state, x)
    assert z.shape[0] == len(x) and z.ndim == 2
    if case.config.method.name in OWN_TEST:
        return
    data = case.data.replace(stages={'earlier': {'a': x}})
    exported = case.method.export(case.state, data, KEY)
    beside = {'likeness'} if case.config.method.name == 'lda' else set()
    assert exported.keys() - beside == case.data.roles.keys()  # nothing of an earlier stage
    flat = np.asarray(exported['test']).reshape(len(x), -1)
    np.testing.assert_allclose(flat, z, rtol=1e-4, atol=1e-5)


def test_training_episodes_are_moved_only_if_asked(trained):
    if trained.config.method.name in OWN_TEST:
        pytest.skip('its items are no images')
    plain = jax.jit(trained.method.sample)(KEY, trained.data)
    known = {p.tobytes() for p in trained.data.roles['train'].x}
    assert {p.tobytes() for p in np.asarray(plain.x_s)} <= known
    moved = jax.jit(trained.build(**{'augment.shift': 2.5}).sample)(KEY, trained.data)
    np.testing.assert_array_equal(moved.class_id, plain.class_id)
    for part in ('x_s', 'x_q'):
        a, b = getattr(moved, part), getattr(plain, part)
        assert a.dtype == b.dtype and (a != b).any((1, 2, 3)).all()


def test_a_scorer_that_can_not_tell_gets_exactly_chance():
    equal = lambda state, episode: jnp.zeros((len(episode.y_q), 4))
    shape = {'tasks': ((4, 1),), 'queries': 3, 'count': 30, 'devices': jax.devices()[:1]}
    got = episode_accuracies(equal, (), images().roles['test'], KEY, **shape)
    np.testing.assert_array_equal(got['4-way 1-shot'], np.full(30, 0.25, np.float32))


@pytest.mark.parametrize('num', [1, 255, 256, 257, 600])
def test_embedding_in_chunks_is_embedding_all(num):
    x = np.random.default_rng(0).normal(size=(num, 3)).astype(np.float32)
    dataset = jax.device_put(from_arrays(x, np.zeros(num, int)))
    got = embed_dataset(lambda x: (2 * x).reshape(-1, 3, 1), dataset)
    np.testing.assert_array_equal(got.x, 2 * x[..., None])
    np.testing.assert_array_equal(got.offset, dataset.offset)


def test_untrainable_methods_refuse_steps():
    config = settle(configs.defaults('knn', 'synthetic'))
    config.num_steps = 1
    with pytest.raises(InputError, match=r'knn has nothing to train: set config\.num_steps=0'):
        configs.find('methods', 'knn').build(config, images())
