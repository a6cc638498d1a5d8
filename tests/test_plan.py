"""What a run needs, told before it: counts by hand, memory by compiling what was foretold."""

import json
import os

import jax
import jax.numpy as jnp
import pytest

from anyshot_jax import config as configs
from anyshot_jax.runtime import ahead, flops, memory
from anyshot_jax.runtime.devices import on_all_devices
from anyshot_jax.training import loop, plan, population
from anyshot_jax.training.step import make_population_step
from anyshot_jax.types import InputError

pytestmark = pytest.mark.slow

# Counting.


def test_operations_of_a_product_in_a_loop():
    def product(x):  # 5 products of [2, 3] by [3, 3]: 2 * 2 * 3 * 3 each
        return jax.lax.scan(lambda c, _: (c @ jnp.ones((3, 3)), None), x, length=5)[0]

    assert flops.count(product, jnp.ones((2, 3))) == 5 * 36
    nested = lambda x: jax.lax.scan(lambda c, _: (product(c), None), x, length=4)[0]
    assert flops.count(jax.checkpoint(nested), jnp.ones((2, 3))) == 4 * 5 * 36


def test_operations_of_the_dearest_branch():
    branch = lambda x: jax.lax.cond(x[0, 0] > 0, lambda: x @ x @ x, lambda: x @ x)
    assert flops.count(branch, jnp.ones((3, 3))) == 2 * 2 * 27


def conv(x, w, stride=1):
    return jax.lax.conv_general_dilated(
        x, w, (stride, stride), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )


def test_operations_of_a_convolution():
    args = jnp.ones((4, 6, 6, 2)), jnp.ones((3, 3, 2, 8))
    want = 2 * 4 * 6 * 6 * 8 * 18  # 4 x 6 x 6 x 8 results of 3 * 3 * 2 products and sums
    assert flops.count(conv, *args) == flops.count(jax.jit(conv), *args) == want


@pytest.mark.parametrize('stride', [1, 2])
def test_derivatives_of_a_convolution_cost_as_much_as_it_does(stride):
    args = jnp.ones((4, 6, 6, 2)), jnp.ones((3, 3, 2, 8))
    one = flops.count(lambda *a: conv(*a, stride), *args)
    both = jax.grad(lambda *a: (conv(*a, stride) ** 2).sum(), (0, 1))
    assert flops.count(both, *args) == pytest.approx(3 * one, rel=1e-6)


def test_operations_are_those_of_all_devices():
    product = jax.pmap(lambda x: x @ x)
    assert flops.count(product, jnp.ones((2, 3, 3))) == 2 * 2 * 27


def test_xla_counts_the_same_where_there_is_no_loop():
    x, w = jnp.ones((16, 8)), jnp.ones((8, 32))
    program = jax.jit(lambda x, w: x @ w).lower(x, w).compile()
    assert flops.count(jnp.matmul, x, w) == program.cost_analysis()['flops']


def built(config):
    """What training has at hand after set-up."""
    config = configs.check(config)
    data = configs.find('data', config.data.name).load(config.data)
    everyone = population.build(config, data)
    data = on_all_devices(data)
    return config, everyone, data, on_all_devices(jax.jit(everyone.init)(data))


def temporary(*args):
    return plan.compiled(*args, jax.devices()).temporary


def unit_bytes(everyone, data):
    unit = everyone.methods[0].sample(jax.random.key(0), data)
    return sum(a.nbytes for a in jax.tree.leaves(unit))


def work_per_step(config):
    config, everyone, data, states = built(config)
    sizes = {'batch_size': config.batch_size, 'steps_per_call': config.steps_per_call}
    return (
        flops.count(make_population_step(everyone, **sizes), states, data) / config.steps_per_call
    )


@pytest.mark.parametrize(('batch_size', 'steps_per_call'), [(2, 1), (2, 4), (8, 2)])
def test_a_step_of_protonet_by_hand(tiny_config, batch_size, steps_per_call):
    """A 6-8-6 net on 3-way 1-shot tasks of 2 queries: 9 items; chunks and steps are loops."""
    net = 2 * 9 * (6 * 8 + 8 * 6)  # forward, and the same again for the weights' gradients
    hidden = 2 * 9 * 8 * 6  # the gradient by the hidden layer
    means = 2 * 3 * 3 * 6  # [3, 3] shares of [3, 6] features, forward and back
    distances = 2 * 6 * 3 * 6  # [6, 6] queries to [3, 6] means; both get a gradient
    task = 2 * net + hidden + 2 * means + 3 * distances
    config = tiny_config(batch_size=batch_size, num_steps=8)
    config.update(steps_per_call=steps_per_call, log_every=8, eval_every=8, save_every=8)
    assert work_per_step(config) == batch_size * task


@pytest.mark.parametrize('steps', [1, 3, 5])
def test_a_step_of_maml_by_hand(tiny_config, steps):
    """A 6-8-6 net and a head of 3 on 3-way 1-shot tasks: 3 support items, 6 queries."""
    first, second, head = 6 * 8, 8 * 6, 6 * 3
    # Forward; by the weights; by what goes into the second layer and the head.
    gradient = 2 * (first + second + head) + second + head
    # The derivative of that: each product has two, but where a factor is the images.
    again = 2 * first + 2 * 3 * (second + head)
    for order, inner in (('first', gradient), ('second', gradient + again)):
        config = tiny_config('maml', method__inner_steps=steps, method__order=order, batch_size=4)
        task = 2 * 3 * steps * inner + 2 * 6 * gradient
        assert work_per_step(config) == 4 * task


def test_a_population_does_the_work_of_its_members(tiny_config):
    """In a loop, in pairs and all at once."""
    one = work_per_step(tiny_config('maml', method__head='zero'))
    vary = (('method.inner_lr', (0.1, 0.2)),)
    for chunk in (1, 2, 4):
        config = tiny_config('maml', method__head='zero', num_seeds=2, vary=vary)
        config.member_chunk = chunk
        assert work_per_step(config) == 4 * one


# Memory.


def test_the_largest_batch_fits_and_no_more(tiny_config):
    """Far beyond what the line was first drawn through, and told by compiling."""
    config = tiny_config('protonet', 'conv4', task_chunk=1000, batch_size=2)
    config, everyone, data, states = built(config)

    def measure(batch):
        return temporary(config, everyone, data, states, batch)

    free = 12 * measure(4)
    unit = unit_bytes(everyone, data)
    found, note = plan.largest_batch(measure, 2, measure(2), free, unit, 2)
    assert 'an estimate, by a line' in note
    assert 20 < int(found) < 80 and int(found) % 2 == 0
    assert 0.9 * free < measure(int(found)) <= 1.01 * free
    assert measure(int(found) + 4) > free


def test_accumulated_gradients_fit_at_any_batch(tiny_config):
    config = tiny_config('protonet', 'conv4', task_chunk=1, batch_size=4)
    config, everyone, data, states = built(config)
    measure = lambda batch: temporary(config, everyone, data, states, batch)
    unit = unit_bytes(everyone, data)
    assert measure(64) - measure(8) < 28 * 2 * unit  # what the sentence says
    found, note = plan.largest_batch(measure, 4, measure(4), 2**30, unit, 2)
    assert found == 'any size fits' and 'does not grow' in note


def test_a_line_through_what_was_measured():
    """100 + 10 a unit, on two devices: whole units on each."""
    line = lambda batch: 100 + 10 * batch
    assert plan.largest_batch(line, 4, line(4), 339, unit=1, devices=2)[0] == '22'
    assert plan.largest_batch(line, 4, 0, 339, unit=1, devices=2)[0] == '22'  # 4: another program
    assert plan.largest_batch(line, 4, line(4), 115, unit=1, devices=2)[0] == '0'
    assert plan.largest_batch(line, 4, line(4), 10**9, unit=1, devices=2)[0] == 'over 4,000'
    assert plan.largest_batch(line, 4, line(4), 339, unit=11, devices=2)[0] == 'any size fits'

    def small(batch):
        if batch > 8:
            raise InputError('no room')
        return line(batch)

    assert plan.largest_batch(small, 4, line(4), 339, unit=1, devices=2)[0] == 'below 12'


def test_memory_that_is_free():
    total = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    assert 2**20 < memory.available_memory() < total
    assert memory.free_bytes() < 0.6 * total  # of two devices each has half


# What is printed.


def test_a_plan_says_what_a_run_needs_and_leaves_nothing(tiny_config, tmp_path, capsys):
    workdir = tmp_path / 'run'
    assert loop.run(tiny_config(plan=True, optim__name='adam'), workdir).means == {}
    printed = capsys.readouterr().out
    lines = {line[:28].strip(): line[28:].split() for line in printed.splitlines()}
    assert 'protonet with mlp on synthetic, 2 x cpu' in printed
    # Weights and biases of 6-8-6; two moments of each, adam's count and the state's beside them.
    assert lines['Parameters'] == ['110', '440', 'bytes']
    assert lines['Dense_0'] == ['56', '224', 'bytes']
    assert lines['state with optimiser'] == ['1.3', 'KiB']  # 3 * 440 + 2 * 4
    assert lines['FLOPs per step'][:2] == ['10.4', 'kFLOP']  # 2 * 5184, by hand above
    assert {'data', 'temporaries of a step', 'peak of training', 'largest meta-batch'} <= set(lines)
    assert '8 steps of' in printed and '2 of' in ' '.join(lines['validation'])
    assert {'compilation', 'training', 'test', 'altogether'} <= set(lines)
    assert not workdir.exists()


def test_a_plan_where_nothing_is_trained(tiny_config, tmp_path, capsys):
    assert loop.run(tiny_config('simpleshot', '', plan=True), tmp_path / 'run').means == {}
    printed = capsys.readouterr().out
    assert 'there is no training' in printed and 'FLOPs' not in printed
    assert 'data   ' in printed and 'test   ' in printed and 'validation' not in printed
    assert not (tmp_path / 'run').exists()


def test_a_plan_beside_a_run_touches_nothing_of_it(tiny_config, tmp_path):
    workdir = tmp_path / 'run'
    want = loop.run(tiny_config(), workdir).means
    files = {p: p.stat().st_mtime_ns for p in workdir.rglob('*')}
    assert loop.run(tiny_config(plan=True, seed=5), workdir).means == {}  # even with another config
    assert {p: p.stat().st_mtime_ns for p in workdir.rglob('*')} == files
    assert loop.run(tiny_config(), workdir).means == want
    assert json.loads((workdir / 'config.json').read_text())['plan'] is False


def test_a_plan_of_stages(tiny_config, tmp_path, capsys):
    make = lambda: configs.in_stages(
        first=tiny_config(), second=tiny_config('knn', '', features_from='first')
    )
    config = make()
    config.plan = True
    assert loop.run(config, tmp_path / 'run').means == {}
    printed = capsys.readouterr().out
    assert "later stages need what 'first' exports" in printed and 'knn' not in printed
    assert not (tmp_path / 'run').exists()
    loop.run(make(), tmp_path / 'run')
    capsys.readouterr()
    assert loop.run(config, tmp_path / 'run').means == {}
    printed = capsys.readouterr().out
    assert 'Plan of protonet' in printed and 'Plan of knn' in printed


def test_a_plan_of_a_batch_that_leaves_a_device_idle(tiny_config, tmp_path, capsys):
    loop.run(tiny_config(plan=True, batch_size=3), tmp_path / 'run')
    printed = capsys.readouterr().out
    assert 'config.batch_size=3 divides over 1 of 2 devices' in printed and '1 x cpu' in printed


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('tpu', "plan_for='tpu' is not known: there are v4, v5e, a100, h100"),
        ('h100', r"pip install 'anyshot-jax\[cuda\]'"),
        ('v5e', r"pip install 'anyshot-jax\[tpu\]'"),
    ],
)
def test_a_machine_that_can_not_be_planned_for(tiny_config, tmp_path, monkeypatch, name, message):
    monkeypatch.setattr(ahead.importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(InputError, match=message):
        loop.run(tiny_config(plan=True, plan_for=name), tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
    ('number', 'words'),
    [
        (plan.size(0), '0 bytes'),
        (plan.size(1023), '1023 bytes'),
        (plan.size(1.5 * 2**30), '1.5 GiB'),
        (plan.operations(37.44e9), '37.4 GFLOP'),
        (plan.seconds(0.00048), '0.48 ms'),
        (plan.seconds(0.38), '0.38 s'),
        (plan.seconds(90), '90.0 s'),
        (plan.seconds(150), '2.5 min'),
        (plan.seconds(5400), '90.0 min'),
        (plan.seconds(7200), '2.0 h'),
        (plan.seconds(5 * 86_400), '5.0 days'),
    ],
)
def test_numbers_as_people_read_them(number, words):
    assert number == words
