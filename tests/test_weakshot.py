"""The stages of weak-shot learning: pairs, the adversary, weights, the classifier, a whole run."""

import shutil
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from anyshot_jax import config as configs
from anyshot_jax.episodes import sampling
from anyshot_jax.methods import simnet
from anyshot_jax.nets.pair_head import Judge, PairHead
from anyshot_jax.stages import handover, similarity, web_set
from anyshot_jax.storage import files
from anyshot_jax.training import loop
from anyshot_jax.training.step import make_step
from anyshot_jax.types import Data, InputError, from_arrays

pytestmark = pytest.mark.slow

KEY = jax.random.key(5)
DIM = 6


def data_of(noise=0.3, classes=(4, 3), each=8, seed=0, shape=(DIM,)):
    """Base, web, test and test_base of classes that are far apart; some web labels are wrong."""
    rng = np.random.default_rng(seed)
    num = sum(classes)
    mean = 4 * rng.normal(size=(num, *shape))

    def items(which):
        label = np.repeat(np.arange(len(which)), each)
        x = mean[np.asarray(which)[label]] + 0.5 * rng.normal(size=(len(label), *shape))
        if len(shape) == 3:
            x = np.clip(128 + 20 * x, 0, 255).astype(np.uint8)
        return x.astype(np.uint8 if len(shape) == 3 else np.float32), label

    base, novel = range(classes[0]), range(classes[0], num)
    roles = {'base': base, 'test_base': base, 'test': novel}
    data = Data({role: from_arrays(*items(which)) for role, which in roles.items()})
    x, label = items(novel)
    clean = rng.random(len(label)) >= noise
    clean[:: each // 2] = True  # every class keeps a right one
    given = np.where(clean, label, (label + 1) % classes[1])
    data.roles['web'] = from_arrays(x, given, clean=clean)
    return data


def config_of(method, net='', **fields):
    config = configs.defaults(method, 'noisy', net)
    if net == 'conv4':
        config.net.update({'features': 4, 'blocks': 2, 'pools': (True, True)})
        config.net.padding = ('SAME', 'SAME')
    if net == 'projection':
        config.net.update({'features': 4, 'power': 1.0})
    steps = 0 if method == 'weigh' else 4
    config.update({'num_steps': steps, 'batch_size': 4, 'steps_per_call': 2, 'log_every': 2})
    config.update({'eval_every': 0, 'save_every': 2})
    config.optim.update({'name': 'sgd', 'learning_rate': 0.1, 'momentum': 0.0})
    config.eval.episodes = 3
    if method == 'simnet':
        config.method.update({'widths': (7, 5, 4), 'base_ways': 3, 'batch_items': 6})
        config.method.update({'eval_ways': 3, 'eval_items': 4})
    for field, value in fields.items():
        part, _, name = field.partition('__')
        config[part][name] = value
    return config


def built(config, data):
    method = configs.find('methods', config.method.name).build(config, data)
    return method, jax.jit(method.init)(KEY, data)


def run(config, data, devices=None, steps=2):
    method, state = built(config, data)
    sizes = {'batch_size': config.batch_size, 'steps_per_call': steps}
    step = make_step(method, **sizes, devices=devices)
    return method, *jax.device_get(step(jax.tree.map(np.asarray, state), data, KEY))


# Pairs.


def test_split_matrix_is_explicit_concatenation():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 5, 3)), rng.normal(size=(2, 4, 3))
    head = PairHead((6, 5))
    variables = dict(head.init(KEY, a, b, train=False))
    move = lambda v: jnp.asarray(v + 0.1 * rng.normal(size=v.shape), jnp.float32)
    variables['params'] = jax.tree.map(move, variables['params'])
    (logits, relation), _ = head.apply(variables, a, b, train=True, mutable=['batch_stats'])
    p = jax.tree.map(np.asarray, variables['params'])

    def norm(x, q):
        flat = x.reshape(-1, x.shape[-1])
        y = (flat - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-5) * q['scale'] + q['bias']
        return np.maximum(y, 0).reshape(x.shape)

    joined = np.array(
        [[[np.concatenate([a[g, i], b[g, j]]) for j in range(4)] for i in range(5)] for g in (0, 1)]
    )
    x = norm(joined @ p['pair_kernel'] + p['pair_bias'], p['norm0'])
    np.testing.assert_allclose(relation, x, rtol=1e-3, atol=1e-4)  # of two layers the first
    x = norm(x @ p['dense1']['kernel'] + p['dense1']['bias'], p['norm1'])
    want = x @ p['logits']['kernel'] + p['logits']['bias']
    np.testing.assert_allclose(logits, want, rtol=1e-3, atol=1e-3)


def test_relation_features_are_those_before_the_last_layer():
    for widths, index in (((8,), 0), ((8, 5), 0), ((8, 7, 5), 1)):
        x = jnp.ones((1, 2, 3))
        head = PairHead(widths)
        _, relation = head.apply(head.init(KEY, x, x, train=False), x, x, train=False)
        assert relation.shape[-1] == widths[index]
        assert similarity.head_like(head.init(KEY, x, x, train=False)['params']).widths == widths


def test_items_are_drawn_once_and_from_few_classes():
    label = np.repeat(np.arange(5), [9, 3, 9, 9, 9])
    dataset = jax.device_put(from_arrays(np.arange(39.0)[:, None], label))
    draw = jax.jit(partial(sampling.draw_items, dataset=dataset, ways=2, num=6, most=16))
    seen = np.zeros(5)
    for key in jax.random.split(KEY, 40):
        row, of = map(np.asarray, draw(key))
        assert len(set(label[row])) <= 2
        for c in set(label[row]):
            own = row[label[row] == c]
            again = len(own) - len(set(own.tolist()))
            assert again == max(0, len(own) - (label == c).sum())
            assert len(set(of[label[row] == c])) == 1
        seen[np.unique(label[row])] += 1
    assert (seen > 0).all()


@pytest.mark.parametrize('self_pairs', [True, False])
def test_a_batch_without_positives_is_finite(self_pairs):
    logits = jax.random.normal(KEY, (1, 3, 3, 2))
    y = jnp.array([[0, 1, 2]])
    loss = lambda logits: simnet.pair_loss(logits, y, 20.0, self_pairs)
    (value, metrics), grad = jax.value_and_grad(loss, has_aux=True)(logits)
    assert np.isfinite(value) and np.isfinite(grad).all()
    log_prob = np.asarray(jax.nn.log_softmax(logits))[0]
    eye = np.eye(3, dtype=bool)
    other = -log_prob[~eye][:, 0].sum()
    want = (other - 20 * log_prob[eye][:, 1].sum()) / 66 if self_pairs else other / 6
    np.testing.assert_allclose(value, want, rtol=1e-5)
    assert self_pairs or metrics['F1'] == 0


def test_no_pairs_at_all_is_finite():
    value, metrics = simnet.pair_loss(jnp.ones((1, 1, 1, 2)), jnp.zeros((1, 1), int), 1.0, False)
    assert value == 0 and np.isfinite(list(metrics.values())).all()


# The adversary.


class Adversary:
    """One step with SGD of rate 1: it is minus the gradient."""

    def __init__(self, adversary):
        config = config_of('simnet', method__adversary=adversary, optim__learning_rate=1.0)
        self.data = jax.device_put(data_of())
        self.method, state = built(config, self.data)
        rng = np.random.default_rng(1)
        move = lambda p: p + 0.3 * rng.normal(size=p.shape).astype(np.float32)
        self.state = state.replace(params=jax.tree.map(move, state.params))
        self.batch = jax.vmap(self.method.sample, (0, None))(jax.random.split(KEY, 2), self.data)
        update = jax.vmap(self.method.update, (None, 0, 0), axis_name='devices')
        one = jax.tree.map(lambda a: a[None], (self.batch, jax.random.split(KEY, 2)))
        self.update = jax.jit(lambda state: jax.tree.map(lambda a: a[0], update(state, *one)))
        self.after, self.metrics = self.update(self.state)
        self.beta = adversary

    def slope(self, part, direction, what):
        """Of a metric, by differences, when `part` of the parameters moves along `direction`."""
        eps = 2e-3

        def at(sign):
            flat, tree = ravel_pytree(self.state.params[part])
            params = {**self.state.params, part: tree(flat + sign * eps * direction)}
            return self.update(self.state.replace(params=params))[1][what]

        return float((at(1) - at(-1)) / (2 * eps))

    def step(self, part):
        moved = jax.tree.map(lambda a, b: a - b, self.after.params, self.state.params)
        return ravel_pytree(moved[part])[0]


@pytest.mark.parametrize('beta', [0.0, 0.5])
def test_a_step_moves_both_as_finite_differences_say(beta):
    """SimNet goes down its pair loss and up the domain loss; the judge down the domain loss.

    Both on the forward pass before the step: the judge's gradient is that at the old net.
    """
    case = Adversary(beta)
    assert np.isfinite(list(case.metrics.values())).all()
    step = case.step('head')
    direction = step / jnp.linalg.norm(step)
    down = {w: case.slope('head', direction, w) for w in ('pair_loss', 'domain_loss')}
    want = -(down['pair_loss'] - beta * down['domain_loss'])
    np.testing.assert_allclose(jnp.linalg.norm(step), want, rtol=0.02)
    step = case.step('judge')
    if not beta:
        assert not step.any()
        return
    direction = step / jnp.linalg.norm(step)
    slope = case.slope('judge', direction, 'domain_loss')
    np.testing.assert_allclose(jnp.linalg.norm(step), -slope, rtol=0.02)


def test_labels_of_web_items_are_not_learnt_from():
    """They do not even come with a batch."""
    sample = built(config_of('simnet'), data_of())[0].sample
    batch = jax.eval_shape(sample, KEY, data_of())
    assert set(batch._fields) == {'x', 'y'}
    assert batch.x.shape == (12, DIM) and batch.y.shape == (6,)


@pytest.mark.parametrize(
    ('method', 'net', 'fields'),
    [
        ('simnet', '', {}),
        ('weakshot', 'projection', {'method__alpha': 0.5}),
        ('weakshot', 'projection', {'method__schedule': 'paper', 'method__alpha': 0.5,
                                    'method__first_epochs': 0, 'method__small_batch': 2}),
    ],
)  # fmt: skip
def test_two_devices_are_one_device(method, net, fields):
    """The graph is that of the whole batch, however many devices share it."""
    data = jax.device_put(data_of())
    config = config_of(method, net, **fields)
    assert len(jax.devices()) == 2
    (_, two, _), (_, one, _) = (
        run(config, data, devices, steps=8) for devices in (jax.devices(), jax.devices()[:1])
    )
    close = partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5)
    jax.tree.map(close, two.params, one.params)
    method, start = built(config, data)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), one.params, start.params)
    assert max(jax.tree.leaves(moved)) > 1e-3


# Similarities in blocks, and weights.


def test_blocks_change_nothing(monkeypatch):
    data = jax.device_put(data_of())
    config = config_of('simnet')
    method, state, _ = run(config, data)
    exported = {'net': {k: np.asarray(v) for k, v in method.export(state, data, KEY).items()}}
    sim = similarity.Similarity.of(Data(stages=exported), 'net')
    z = similarity.features_of(sim, data.roles['web'].x)
    whole = np.asarray(sim.pairs(sim.params, z, z))
    monkeypatch.setattr(similarity, 'BLOCK', 100)
    np.testing.assert_allclose(similarity.all_pairs(sim, z), whole, rtol=1e-5, atol=1e-6)
    # The stage says of pairs what it hands on.
    np.testing.assert_allclose(method.similarity(state, z, z), whole, rtol=1e-5, atol=1e-6)
    assert ((whole >= 0) & (whole <= 1)).all()


def test_memory_of_a_large_class():
    """1,000 images of a class, the paper's head: what XLA plans for a block."""
    head = PairHead((4096, 2048, 2048))
    shape = lambda *s: jax.ShapeDtypeStruct(s, jnp.float32)
    z = shape(1, 2, 2048)
    variables = jax.eval_shape(partial(head.init, train=False), KEY, z, z)
    variables = jax.tree.map(lambda a: np.broadcast_to(np.float32(0), a.shape), dict(variables))
    params = {'head': variables.pop('params')}
    net = configs.defaults('simnet', 'noisy').net
    exported = {'net': handover.export_net(net, params, {'head': variables})}
    sim = similarity.Similarity.of(Data(stages=exported), 'net')
    num = 1000
    rows = similarity.rows_at_once(num, num)
    program = jax.jit(sim.pairs).lower(sim.params, shape(rows, 2048), shape(num, 2048)).compile()
    found = program.memory_analysis()
    weights = 4 * sum(a.size for a in jax.tree.leaves(sim.params))
    beyond = found.temp_size_in_bytes + found.output_size_in_bytes + 4 * num * (num + 2048)
    assert weights > 100e6 and beyond < 2**30
    # All pairs of one layer at once would be 16 GB.
    assert found.argument_size_in_bytes < weights + 2**25


@pytest.mark.parametrize('kind', ['mean', 'rows', 'top', 'density', 'votes', 'planted'])
def test_weights_find_wrong_labels(kind):
    """By cosine, of classes that are far apart."""
    data = jax.device_put(data_of(noise=0.3, each=12))
    method, state = built(config_of('weigh', method__kind=kind), data)
    made = method.export(state, data, KEY)
    label = np.asarray(data.roles['web'].label)
    means = [made['weight'][label == c].mean() for c in range(3)]
    np.testing.assert_allclose(means, 1, rtol=1e-5)
    values = method.evaluate(state, data, KEY, 'test')
    assert values['AUROC of the weights'][0] > (0.6 if kind == 'density' else 0.9)
    assert ((values['images that count'] > 0) & (values['images that count'] <= 1 + 1e-6)).all()
    assert made['similarity'].shape == (len(label), np.bincount(label).max())


def test_unknown_truth_gives_no_auroc():
    data = data_of()
    data.roles['web'] = data.roles['web'].replace(clean=None)
    method, state = built(config_of('weigh'), jax.device_put(data))
    assert list(method.evaluate(state, data, KEY, 'test')) == ['images that count']


def test_truth_changes_no_weight():
    data = data_of()
    web = data.roles['web']
    other = Data({**data.roles, 'web': web.replace(clean=~web.clean)})
    for kind in ('mean', 'votes'):
        a, b = (
            built(config_of('weigh', method__kind=kind), jax.device_put(d))[0].export((), d, KEY)
            for d in (data, other)
        )
        np.testing.assert_array_equal(a['weight'], b['weight'])


# The classifier.


def test_wrong_labels_of_weight_zero_are_not_learnt():
    data = jax.device_put(data_of(noise=0.5, each=12))
    accuracy = {}
    for weights in ('', 'truth'):
        config = config_of('weakshot', method__weights_from=weights, optim__learning_rate=0.02)
        config.update({'batch_size': 32})
        method, state, _ = run(config, data, steps=60)
        accuracy[weights] = method.evaluate(state, data, KEY, 'test')['accuracy'].mean()
    assert accuracy['truth'] == 1 and accuracy[''] < 1


def test_loss_is_weighted_cross_entropy_and_graph():
    """The metrics of a first step, by NumPy: scores are 0, so every entropy is log C."""
    data = jax.device_put(data_of())
    rng = np.random.default_rng(3)
    weight = rng.random(len(data.roles['web'].label)).astype(np.float32)
    given = data.replace(stages={'weights': {'weight': weight}})
    fields = {'method__weights_from': 'weights', 'method__alpha': 0.3, 'method__stretch': -4.0}
    config = config_of('weakshot', 'projection', **fields)
    method, state = built(config, given)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(KEY, 0), jnp.arange(4))
    keys = jax.vmap(jax.random.split)(keys)
    batch = jax.vmap(method.sample, (0, None))(keys[:, 0], given)
    step = make_step(method, batch_size=4, steps_per_call=1)
    _, metrics = step(jax.tree.map(np.asarray, state), given, KEY)
    x = np.asarray(batch.x, np.float64)
    rows = [
        np.flatnonzero((np.asarray(data.roles['web'].x) == r).all(1))[0]
        for r in np.asarray(batch.x)
    ]
    np.testing.assert_allclose(batch.weight, weight[rows])
    np.testing.assert_allclose(
        metrics['cross_entropy'][0], weight[rows].mean() * np.log(3), rtol=1e-5
    )
    length = x / np.linalg.norm(x, axis=1, keepdims=True)
    edge = np.expm1(-4 * np.maximum(length @ length.T, 0)) / np.expm1(-4)
    h = length @ np.asarray(state.params['net']['kernel'])
    h /= np.linalg.norm(h, axis=1, keepdims=True)
    rough = np.mean(edge * ((h[:, None] - h[None]) ** 2).sum(-1))
    np.testing.assert_allclose(metrics['roughness'][0], rough, rtol=1e-4)
    whole = metrics['cross_entropy'][0] + 0.3 * rough
    np.testing.assert_allclose(metrics['loss'][0], whole, rtol=1e-5)


@pytest.mark.parametrize('balance', ['none', 'sample', 'loss'])
def test_balance_of_classes_in_the_generalised_setting(balance):
    data = data_of(each=12)
    few = np.r_[0:12, 12:15, 24:30]  # base classes of 12, 3, 6 and 0 items less
    base = from_arrays(data.roles['base'].x[few], data.roles['base'].label[few])
    rows = np.flatnonzero(np.asarray(data.roles['test_base'].label) < 3)
    test_base = from_arrays(data.roles['test_base'].x[rows], data.roles['test_base'].label[rows])
    data = jax.device_put(Data({**data.roles, 'base': base, 'test_base': test_base}))
    config = config_of('weakshot', method__generalised=True, method__balance=balance)
    method, _ = built(config, data)
    drawn = jax.jit(jax.vmap(method.sample, (0, None)))(jax.random.split(KEY, 4000), data)
    count = np.concatenate([base.count, data.roles['web'].count])
    y, weight = np.asarray(drawn.y), np.asarray(drawn.weight)
    share = np.bincount(y, minlength=6) / 4000
    mass = np.bincount(y, weight, 6) / weight.sum()
    even = np.full(6, 1 / 6)
    error = 4 * np.sqrt(1 / 6 * 5 / 6 / 4000)
    if balance == 'none':
        np.testing.assert_allclose(share, count / count.sum(), atol=error)
    elif balance == 'sample':
        np.testing.assert_allclose(share, even, atol=error)
    else:
        np.testing.assert_allclose(mass, even, atol=2.5 * error)
        want = count.mean() / count
        np.testing.assert_allclose(np.unique(np.round(weight, 4)), np.unique(np.round(want, 4)))
    # Items carry the labels of their own role: base 0..2, novel 3..5.
    web = (np.asarray(a) for a in (data.roles['web'].label, data.roles['web'].x))
    source = {r.tobytes(): c for c, r in zip(base.label, base.x, strict=True)}
    source |= {r.tobytes(): 3 + c for c, r in zip(*web, strict=True)}
    assert all(source[x.tobytes()] == c for x, c in zip(np.asarray(drawn.x)[:200], y, strict=False))


def test_generalised_accuracy_is_over_all_classes():
    data = jax.device_put(data_of(noise=0.0))
    config = config_of('weakshot', method__generalised=True, optim__learning_rate=0.02)
    config.batch_size = 16
    method, state, _ = run(config, data, steps=60)
    values = method.evaluate(state, data, KEY, 'test')
    assert list(values) == ['accuracy', 'seen', 'unseen', 'harmonic mean']
    assert len(values['accuracy']) == len(values['seen']) + len(values['unseen']) == 56
    assert values['accuracy'].mean() > 0.9
    s, u = values['seen'].mean(), values['unseen'].mean()
    np.testing.assert_allclose(values['harmonic mean'], [2 * s * u / (s + u)], rtol=1e-5)


def test_the_papers_schedule():
    """Epochs of 6 steps (24 items, 4 a step): small batches first, then graph and small in turn."""
    data = jax.device_put(data_of())
    fields = {'schedule': 'paper', 'first_epochs': 1, 'halve_epochs': 2, 'small_batch': 2}
    config = config_of('weakshot', 'projection', method__alpha=0.1)
    config.method.update(fields)
    _, _, metrics = run(config, data, steps=24)
    graph = metrics['roughness'] > 0
    np.testing.assert_array_equal(graph, np.repeat([False, True, False, True], 6))


# What can't be learnt from.


@pytest.mark.parametrize(
    ('method', 'fields', 'message'),
    [
        ('simnet', {'method__widths': ()}, r'config\.method\.widths'),
        ('simnet', {'method__adversary': -1.0}, 'adversary=-1.0 must be >= 0'),
        (
            'simnet',
            {'method__start_from': 'pretrain'},
            r"start_from='pretrain' is no earlier stage",
        ),
        ('weigh', {'method__kind': 'vote'}, "did you mean 'votes'"),
        ('weigh', {'method__simnet_from': 'simnett'}, r"simnet_from='simnett' is no earlier stage"),
        ('weakshot', {'method__weights_from': 'w'}, r"weights_from='w' is no earlier stage"),
        ('weakshot', {'method__alpha': 0.1}, r'smooths the features of config\.net'),
        ('weakshot', {'method__schedule': 'papers'}, "did you mean 'paper'"),
        ('weakshot', {'method__schedule': 'paper', 'method__small_batch': 3}, 'a multiple of'),
        ('pretrain', {'method__role': 'bass'}, r"config\.method\.role='bass'"),
    ],
)
def test_fields_that_do_not_fit(method, fields, message):
    with pytest.raises(InputError, match=message):
        built(config_of(method, **fields), data_of())


@pytest.mark.parametrize('method', ['simnet', 'weigh', 'weakshot', 'pretrain'])
def test_other_data_are_refused(method):
    config, data = config_of(method), data_of()
    with pytest.raises(InputError, match='needs the roles base, web and test'):
        built(config, Data({'train': data.roles['base'], 'test': data.roles['test']}))


def test_images_need_a_net():
    with pytest.raises(InputError, match=r'set config\.encoder, or config\.net'):
        built(config_of('simnet'), data_of(shape=(8, 8, 1)))


def test_weights_of_other_images_are_refused():
    data = data_of().replace(stages={'weights': {'weight': np.ones(3)}})
    with pytest.raises(InputError, match='holds no weights of these 24 web images'):
        built(config_of('weakshot', method__weights_from='weights'), data)


def test_truth_that_is_not_known_is_refused():
    data = data_of()
    data.roles['web'] = data.roles['web'].replace(clean=None)
    with pytest.raises(InputError, match='needs to know which web labels are right'):
        built(config_of('weakshot', method__weights_from='truth'), data)


# The whole.


def recipe():
    """Pretrained, then fine-tuned nets on tiny images: no encoder."""
    stages = {
        'pretrain': config_of('pretrain', 'conv4'),
        'simnet': config_of('simnet', 'conv4', method__start_from='pretrain'),
        'weights': config_of('weigh', method__simnet_from='simnet', method__kind='votes'),
        'classify': config_of(
            'weakshot', 'conv4', method__start_from='pretrain', method__weights_from='weights',
            method__simnet_from='simnet', method__alpha=0.01,
        ),
    }  # fmt: skip
    for stage in stages.values():
        stage.data.source = 'synthetic'
        stage.data.source_fields = (
            ('size', 16),
            ('num_classes', (3, 2, 3)),
            ('per_class', (10, 12)),
        )
        stage.augment.degrees = 5.0 * (stage.num_steps > 0)
    return configs.in_stages(**stages)


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp('weak') / 'run'
    means = loop.run(recipe(), workdir).means
    return workdir, means


def test_the_whole_recipe_runs_on_images(finished):
    workdir, means = finished
    assert set(means) == {'accuracy'} and 0 <= means['accuracy'] <= 1
    weights = files.load_artifacts(workdir / 'weights' / 'artifacts.npz')
    assert set(weights) == {'weight', 'score', 'similarity'}
    trained = files.load_artifacts(workdir / 'pretrain' / 'artifacts.npz')
    tuned = files.load_artifacts(workdir / 'simnet' / 'artifacts.npz')
    kernels = [n for n in trained if n.startswith('params/net/') and n.endswith('kernel')]
    assert kernels and all((trained[n] != tuned[n]).any() for n in kernels)  # the backbone moves


@pytest.mark.parametrize('stage', ['simnet', 'classify'])
def test_a_killed_stage_ends_with_the_same_bits(finished, tmp_path, stage):
    workdir = shutil.copytree(finished[0], tmp_path / 'killed')
    for name in ('result.json', 'artifacts.npz', 'report.html'):
        (workdir / stage / name).unlink()
    shutil.rmtree(workdir / stage / 'checkpoints' / '4')
    loop.run(recipe(), workdir)
    again, before = (
        files.load_artifacts(w / stage / 'artifacts.npz') for w in (workdir, finished[0])
    )
    assert again.keys() == before.keys()
    for name in before:
        np.testing.assert_array_equal(again[name], before[name])


def test_the_report_shows_weights_and_rungs(finished):
    html = (finished[0] / 'weights' / 'report.html').read_text()
    for anchor in ('weights', 'best-worst', 'similarities'):
        assert f'<section id="{anchor}">' in html
    assert html.count('data:image/png') > 10
    html = (finished[0] / 'classify' / 'report.html').read_text()
    assert '<section id="rungs">' in html and 'classify</bdi> (this page)' in html


def test_training_of_the_weakshot_module_keeps_roles_apart():
    """`take` finds the same item as joining the roles would."""
    data = jax.device_put(data_of())
    both = np.concatenate([data.roles['base'].x, data.roles['web'].x])
    for row in (0, 31, 32, 55):
        got = web_set.take(data, ('base', 'web'), jnp.asarray(row))
        np.testing.assert_array_equal(got, both[row])


def test_the_judge_tells_domains():
    relation = jnp.zeros((2, 2, 3, 3, 4)).at[:, 1].set(1.0)
    judge = Judge()
    params = judge.init(KEY, relation)['params']
    value, right = simnet.domain_loss(judge, params, relation)
    told = jax.nn.log_softmax(judge.apply({'params': params}, relation))
    want = -(told[:, 0, ..., 0].mean() + told[:, 1, ..., 1].mean()) / 2
    np.testing.assert_allclose(value, want, rtol=1e-6)
    assert right in (0, 0.5, 1)
