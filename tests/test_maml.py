"""Meta-gradients of the real update, in float64, against central differences and by hand."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_tasks import Case, body, cross_entropy, dense, task_loss, worst

from anyshot_jax import config as configs
from anyshot_jax.methods.maml import step_weights
from anyshot_jax.types import InputError

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


FORMS = {
    'MAML': {},
    'MAML, queries by the query set': {'batch_norm': 'transductive'},
    'three steps': {'inner_steps': 3, 'inner_lr': 0.1},
    'three steps computed again': {'inner_steps': 3, 'inner_lr': 0.1, 'remat': True},
    'Meta-SGD from a head of zeros': {'head': 'zero', 'learn_lr': 'parameter', 'inner_steps': 2},
    'ANIL': {'adapt': 'head', 'inner_steps': 2},
    'BOIL': {'adapt': 'body', 'inner_steps': 2, 'inner_lr': 0.1},
    'Meta-SGD': {'learn_lr': 'parameter', 'inner_steps': 2, 'inner_lr': 0.1},
    'MAML++': {
        'learn_lr': 'step_layer', 'inner_steps': 2, 'inner_lr': 0.1, 'multi_step_loss': 10,
        'batch_norm': 'per_step',
    },
}  # fmt: skip


@pytest.mark.parametrize('fields', FORMS.values(), ids=FORMS)
def test_meta_gradient_is_that_of_central_differences(fields):
    """Every entry of every leaf: kernels, batch norm, head and learned rates."""
    grads, differences = Case(**fields).grads_and_differences()
    assert worst(grads, differences) < 1e-5


def test_remat_and_vmap_over_tasks_change_nothing():
    fields = {'inner_steps': 3, 'inner_lr': 0.1}
    want = Case(tasks=3, task_chunk=1, **fields).grads()  # task by task, accumulated
    assert worst(Case(tasks=3, task_chunk=3, **fields).grads(), want) < 1e-10
    assert worst(Case(tasks=3, task_chunk=1, remat=True, **fields).grads(), want) < 1e-10


ON_DEVICES = """
import jax, numpy as np
from anyshot_jax import config as configs
from anyshot_jax.runtime.devices import on_all_devices
from anyshot_jax.training.step import make_step

KEY = jax.random.key(1)
config = configs.defaults('maml', 'synthetic', 'conv4')
config.net.update({'features': 4, 'blocks': 2, 'pools': (True,) * 2, 'padding': ('SAME',) * 2})
config.train.update({'ways': 3, 'shots': 1, 'queries': 2})
config.eval.tasks = ((3, 1),)
config.method.inner_steps = 2
config.optim.update({'name': 'sgd', 'learning_rate': 0.02})
data = configs.find('data', 'synthetic').load(config.data)
method = configs.find('methods', 'maml').build(config, data)
data = on_all_devices(data)
for n in (1, 2, 4):
    state = on_all_devices(jax.jit(method.init)(KEY, data))
    step = make_step(method, batch_size=8, steps_per_call=3, devices=jax.devices()[:n])
    state, metrics = step(state, data, KEY)
    leaves = [metrics['loss'], *jax.tree.leaves(state.params)]
    print(*np.concatenate([np.ravel(leaf) for leaf in leaves]).tolist())
"""


def test_four_devices_are_one_device(python):
    """The same eight tasks a step: the same losses and weights, to rounding."""
    flags = os.environ['XLA_FLAGS'].replace('--xla_force_host_platform_device_count=2', '')
    done = python('-c', ON_DEVICES, timeout=600, JAX_NUM_CPU_DEVICES='4', XLA_FLAGS=flags)
    one, two, four = (np.array(x.split(), float) for x in done.stdout.strip().splitlines())
    assert len(one) > 100 and np.abs(one[:3] - one[0]).max() > 1e-4  # it learnt something
    np.testing.assert_allclose(two, one, rtol=1e-4, atol=2e-5)
    np.testing.assert_allclose(four, one, rtol=1e-4, atol=2e-5)


def test_first_order_is_the_gradient_at_the_adapted_point():
    """By hand: descend on the support set, then differentiate the query loss there."""
    case = Case(tasks=1, order='first', inner_steps=2, batch_norm='transductive')
    episode = jax.tree.map(lambda a: a[0], case.batch)
    params = case.state.params
    for _ in range(2):
        grads = jax.grad(task_loss)(params, episode.x_s, episode.y_s)
        params = jax.tree.map(lambda p, g: p - 0.4 * g, params, grads)
    want = jax.grad(task_loss)(params, episode.x_q, episode.y_q)
    assert worst(case.grads(), want) < 1e-10
    # ... and it is not the exact one.
    exact = Case(tasks=1, inner_steps=2, batch_norm='transductive').grads()
    assert worst(case.grads(), exact) > 0.01


def test_first_order_of_anil_leaves_the_body_the_query_gradient():
    """The body is not in the inner loop; its support features are constants there."""
    case = Case(tasks=1, adapt='head', order='first', batch_norm='transductive')
    episode = jax.tree.map(lambda a: a[0], case.batch)
    params = case.state.params
    z = body(params['net'], episode.x_s)
    logits = dense(params['head'], z)
    error = (jax.nn.softmax(logits) - jax.nn.one_hot(episode.y_s, 3)) / len(z)
    head = {
        'kernel': params['head']['kernel'] - 0.4 * z.T @ error,
        'bias': params['head']['bias'] - 0.4 * error.sum(0),
    }

    def query_loss(p):
        return cross_entropy(dense(head, body(p, episode.x_q)), episode.y_q)

    want = jax.grad(query_loss)(params['net'])
    assert worst(case.grads()['net'], want) < 1e-10


def test_the_order_grows_with_training():
    """second_order_from: first order before that step, second from it on."""
    fields = {'inner_steps': 2, 'inner_lr': 0.1}
    first, second = Case(order='first', **fields).grads(), Case(**fields).grads()
    for step, want in [(0, first), (1, first), (2, second)]:
        case = Case(second_order_from=2, **fields)
        case.state.extra['step'] = jnp.float64(step)
        assert worst(case.grads(), want) < 1e-10


def test_weights_of_the_multi_step_loss():
    np.testing.assert_allclose(step_weights(0.0, 4), np.full(4, 0.25))
    np.testing.assert_allclose(step_weights(0.5, 4), [0.125, 0.125, 0.125, 0.625])
    for done in (1.0, 7.0):
        np.testing.assert_allclose(step_weights(done, 4), [0.0075, 0.0075, 0.0075, 0.9775])


def test_learned_rates_of_steps_beyond_training_are_the_last_ones():
    few = Case(learn_lr='step_layer', inner_steps=2, eval_steps=4)
    many = Case(learn_lr='step_layer', inner_steps=4)
    rates = few.state.params['inner_lr']
    rates = jax.tree.map(lambda r: r * jnp.array([1.0, 0.5]), rates)
    longer = jax.tree.map(lambda r: r[jnp.array([0, 1, 1, 1])], rates)
    episode = jax.tree.map(lambda a: a[0], few.batch)
    params = {**few.state.params, 'inner_lr': rates}
    got = few.method.predict(few.state.replace(params=params), episode)
    params = {**params, 'inner_lr': longer}
    want = many.method.predict(few.state.replace(params=params), episode)
    np.testing.assert_allclose(got, want, rtol=1e-10)


def test_running_statistics_are_those_of_the_support_sets():
    """Only `embed` uses them; the queries' statistics stay out."""
    case = Case()
    after, _ = case.update(case.state.params)
    old, new = case.state.extra['net'], after.extra['net']
    x = case.batch.x_s
    x = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)))
    taps = [x[:, :, i : i + 8, j : j + 8, 0] for i in range(3) for j in range(3)]
    kernel = np.asarray(case.state.params['net']['conv1']['kernel']).reshape(9, 3)
    y = np.stack(taps, -1) @ kernel
    batch = y.mean((1, 2, 3)).mean(0), y.var((1, 2, 3)).mean(0)
    for name, value in zip(('mean', 'var'), batch, strict=True):
        before = old['batch_stats']['norm1'][name]
        got = new['batch_stats']['norm1'][name]
        np.testing.assert_allclose(got, 0.9 * before + 0.1 * value, rtol=1e-8)


def test_rates_hold_for_the_ways_of_training():
    """From a head of zeros one step moves a class's weights alike, whatever the ways."""
    case = Case(tasks=1, head='zero', batch_norm='transductive', inner_steps=1)
    episode = jax.tree.map(lambda a: a[0], case.batch)
    two = episode._replace(x_s=episode.x_s[:4], y_s=episode.y_s[:4], class_id=episode.class_id[:2])
    got = case.method.predict(case.state, two)
    net = case.state.params['net']
    z_s, z_q = body(net, two.x_s), body(net, two.x_q)
    error = (jax.nn.one_hot(two.y_s, 2) - 0.5) / 4
    rate = 0.4 * 2 / 3  # of the default for 3 ways
    want = rate * (z_q @ z_s.T @ error + error.sum(0)[None])
    np.testing.assert_allclose(got, want, rtol=1e-8)


def test_statistics_by_step_are_kept_and_used():
    """With momentum 1 they are one task's own: then they predict as its batch statistics do."""
    # No rate: a given statistic is a constant for the inner gradient, the task's own is not.
    fields = {'inner_steps': 2, 'inner_lr': 0.0}
    case = Case(tasks=1, batch_norm='per_step', **fields)
    own = Case(tasks=1, batch_norm='transductive', **fields)
    assert worst(case.grads(), own.grads()) < 1e-10  # in training nothing else is used
    after, _ = case.update(case.state.params)
    old, new = case.state.extra['net'], after.extra['net']
    stats = jax.tree.map(lambda a, b: (b - 0.9 * a) / 0.1, old, new)  # what the task had
    assert jax.tree.leaves(stats)[0].shape[0] == 3  # two steps, and the queries at the end
    episode = jax.tree.map(lambda a: a[0], case.batch)
    state = case.state.replace(extra={**case.state.extra, 'net': stats})
    want = own.method.predict(own.state, episode)
    np.testing.assert_allclose(case.method.predict(state, episode), want, rtol=1e-7)
    # A query is answered the same whoever stands beside it.
    half = episode._replace(x_q=episode.x_q[:3], y_q=episode.y_q[:3])
    np.testing.assert_allclose(case.method.predict(state, half), want[:3], rtol=1e-7)


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'order': 'frist'}, "order='frist' is unknown; did you mean 'first'"),
        ({'adapt': 'heed'}, "adapt='heed' is unknown; did you mean 'head'"),
        ({'learn_lr': 'yes'}, "learn_lr='yes' is unknown; there are no, parameter, step_layer"),
        ({'head': 'per_clas'}, "head='per_clas' is unknown; did you mean 'per_class'"),
        ({'inner_steps': 0}, 'inner_steps must be >= 1'),
        ({'batch_norm': 'per_step', 'adapt': 'head'}, 'needs a body that adapts'),
    ],
)
def test_what_can_not_be_used_is_refused(fields, message):
    with pytest.raises(InputError, match=message):
        Case(**fields)


def test_a_head_of_three_classes_answers_no_other_tasks():
    config = configs.defaults('maml', 'synthetic', 'conv4')
    config.eval.tasks = ((5, 1), (4, 1))
    with pytest.raises(InputError, match=r'ways=5 outputs, but the task is 4-way: .*eval\.tasks'):
        configs.find('methods', 'maml').build(config, {})
