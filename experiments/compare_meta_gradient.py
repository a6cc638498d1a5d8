"""MAML's meta-gradient here and in PyTorch, from the same weights and the same tasks.

    python experiments/compare_meta_gradient.py [--inner_steps=5] [--order=first] [--float64]

Prints for every other program that is installed (a plain PyTorch loop, learn2learn, higher) the
largest difference over all parameters, relative to the largest entry of that parameter's gradient:
task by task and with all tasks under vmap. The others compute in float64, from the same float32
weights and tasks; what their own float32 makes of it is printed, too. In float32 an entry on the
edge of a ReLU or of a pooling window may go the other way, in theirs or in ours, which is 1e-3 at
once. So several batches are drawn, and it ends with an error if the median of ours is above 1e-4
(float64: 1e-9).
"""

import contextlib
import os
import sys
from collections.abc import Callable
from importlib.util import find_spec

import jax
import numpy as np
import optax
from absl import app, flags

from anyshot_jax import config as configs
from anyshot_jax.types import Data, Episode, from_arrays

_STEPS = flags.DEFINE_integer('inner_steps', 1, 'Inner steps.')
_LR = flags.DEFINE_float('inner_lr', 0.4, 'Inner learning rate.')
_ORDER = flags.DEFINE_enum('order', 'second', ['second', 'first'], 'Order of the meta-gradient.')
_FLOAT64 = flags.DEFINE_bool('float64', False, 'Compute in float64.')
_TASKS = flags.DEFINE_integer('tasks', 2, 'Tasks of the meta-batch.')
_DRAWS = flags.DEFINE_integer('draws', 5, 'Batches.')
_FEATURES = flags.DEFINE_integer('features', 64, 'Channels of Conv4.')
WAYS, SHOTS, QUERIES = 5, 1, 15


def tasks(dtype: type, seed: int) -> Episode:
    """A batch of episodes of images in 0..1, each class around an image of its own."""
    rng = np.random.default_rng(seed)
    prototype = rng.normal(size=(_TASKS.value, WAYS, 1, 28, 28, 1))

    def draw(num):
        x = 0.5 + 0.15 * (prototype + rng.normal(size=(_TASKS.value, WAYS, num, 28, 28, 1)))
        y = np.tile(np.repeat(np.arange(WAYS), num), (_TASKS.value, 1))
        return x.reshape(_TASKS.value, WAYS * num, 28, 28, 1).astype(dtype), y

    (x_s, y_s), (x_q, y_q) = draw(SHOTS), draw(QUERIES)
    return Episode(x_s, y_s, x_q, y_q, np.tile(np.arange(WAYS), (_TASKS.value, 1)))


def ours(batch: Episode, task_chunk: int) -> tuple[dict, dict]:
    """(params, gradient) of the package's own update, as its optimiser is given it."""
    config = configs.defaults('maml', 'synthetic', 'conv4')
    config.net.features = _FEATURES.value
    config.method.update({'batch_norm': 'transductive', 'order': _ORDER.value})
    config.method.update({'inner_steps': _STEPS.value, 'inner_lr': _LR.value})
    config.train.update({'ways': WAYS, 'shots': SHOTS, 'queries': QUERIES})
    config.eval.tasks = ((WAYS, SHOTS),)
    config.optim.update({'name': 'sgd', 'momentum': 0.9})  # its first momentum is the gradient
    config.num_steps = 1
    config.task_chunk = task_chunk
    x = np.concatenate([batch.x_s[0], batch.x_q[0]])
    dataset = from_arrays(x, np.concatenate([batch.y_s[0], batch.y_q[0]]))
    data = Data(dict.fromkeys(('train', 'val', 'test'), dataset))
    method = configs.find('methods', 'maml').build(config, data)
    rng = np.random.default_rng(1)

    def typed(a):
        wide = jax.numpy.issubdtype(a.dtype, np.floating)
        return np.asarray(a, batch.x_s.dtype if wide else a.dtype)

    state = jax.tree.map(typed, jax.jit(method.init)(jax.random.key(0), data))
    shake = lambda p: typed(p + 0.05 * rng.normal(size=p.shape))  # no zeros, no ones
    state = state.replace(params=jax.tree.map(shake, state.params))
    keys = jax.random.split(jax.random.key(1), _TASKS.value)
    one = jax.tree.map(lambda a: a[None], (batch, keys))
    update = jax.jit(jax.vmap(method.update, (None, 0, 0), axis_name='devices'))
    after, _ = update(state, *one)
    grads = optax.tree_utils.tree_get(after.opt_state, 'trace')
    return state.params, jax.tree.map(lambda a: np.asarray(a)[0], grads)


def torch_net(params: dict):
    """The same Conv4 and head with the same weights."""
    import torch
    from torch import nn

    def tensor(a):
        return nn.Parameter(torch.from_numpy(np.array(a)))

    layers = []
    for i in range(1, 5):
        kernel = params['net'][f'conv{i}']['kernel'].transpose(3, 2, 0, 1)
        conv = nn.Conv2d(kernel.shape[1], kernel.shape[0], 3, padding=1, bias=False)
        norm = nn.BatchNorm2d(kernel.shape[0], track_running_stats=False)
        conv.weight = tensor(kernel)
        norm.weight = tensor(params['net'][f'norm{i}']['scale'])
        norm.bias = tensor(params['net'][f'norm{i}']['bias'])
        layers += [conv, norm, nn.ReLU(), nn.MaxPool2d(2)]
    kernel = params['head']['kernel'].T
    dense = nn.Linear(*kernel.shape[::-1])
    dense.weight, dense.bias = tensor(kernel), tensor(params['head']['bias'])
    return nn.Sequential(*layers, nn.Flatten(), dense)


def torch_loop(net, batch):
    """Steps by torch.autograd.grad and functional_call, task by task."""
    import torch
    from torch.func import functional_call

    start = dict(net.named_parameters())
    for x_s, y_s, x_q, y_q in batch:
        fast = start
        for _ in range(_STEPS.value):
            value = torch.nn.functional.cross_entropy(functional_call(net, fast, (x_s,)), y_s)
            exact = _ORDER.value == 'second'
            grads = torch.autograd.grad(value, fast.values(), create_graph=exact)
            moved = zip(fast.items(), grads, strict=True)
            fast = {name: p - _LR.value * g for (name, p), g in moved}
        value = torch.nn.functional.cross_entropy(functional_call(net, fast, (x_q,)), y_q)
        (value / len(batch)).backward()


def learn2learn(net, batch):
    import torch

    for op in ('nms', 'qnms'):  # learn2learn loads torchvision, which may be of another torch
        with contextlib.suppress(RuntimeError):
            torch.library.define(f'torchvision::{op}', '(Tensor a, Tensor b, float c) -> Tensor')
    import learn2learn as l2l
    from torch.nn.functional import cross_entropy

    maml = l2l.algorithms.MAML(net, lr=_LR.value, first_order=_ORDER.value == 'first')
    for x_s, y_s, x_q, y_q in batch:
        clone = maml.clone()
        for _ in range(_STEPS.value):
            clone.adapt(cross_entropy(clone(x_s), y_s))
        (cross_entropy(clone(x_q), y_q) / len(batch)).backward()


def higher(net, batch):
    import higher
    import torch
    from torch.nn.functional import cross_entropy

    inner = torch.optim.SGD(net.parameters(), lr=_LR.value)
    for x_s, y_s, x_q, y_q in batch:
        with higher.innerloop_ctx(net, inner, copy_initial_weights=False) as (fast, descent):
            for _ in range(_STEPS.value):
                if _ORDER.value == 'first':
                    descent.step(cross_entropy(fast(x_s), y_s), grad_callback=_detached)
                else:
                    descent.step(cross_entropy(fast(x_s), y_s))
            (cross_entropy(fast(x_q), y_q) / len(batch)).backward()


def _detached(grads):
    return [g.detach() for g in grads]


def theirs(run: Callable, params: dict, batch: Episode) -> dict:
    """The gradient of a PyTorch program, in our names and axes."""
    import torch

    net = torch_net(params)
    image = lambda x: torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
    parts = batch.x_s, batch.y_s, batch.x_q, batch.y_q
    rows = [
        (image(x_s), torch.from_numpy(y_s), image(x_q), torch.from_numpy(y_q))
        for x_s, y_s, x_q, y_q in zip(*parts, strict=True)
    ]
    run(net, rows)
    grads = [p.grad.numpy() for p in net.parameters()]
    blocks = {}
    for i in range(4):
        kernel, scale, bias = grads[3 * i : 3 * i + 3]
        blocks[f'conv{i + 1}'] = {'kernel': kernel.transpose(2, 3, 1, 0)}
        blocks[f'norm{i + 1}'] = {'scale': scale, 'bias': bias}
    return {'net': blocks, 'head': {'kernel': grads[-2].T, 'bias': grads[-1]}}


def main(argv: list[str]) -> None:
    del argv
    jax.config.update('jax_enable_x64', _FLOAT64.value)
    if find_spec('torch') is None:
        print('PyTorch is not installed: nothing to compare with (pip install torch)')
        return
    runs = {'torch': torch_loop, 'learn2learn': learn2learn, 'higher': higher}
    for name in [name for name in runs if find_spec(name) is None]:
        print(f'{name}: not installed, skipped')
        del runs[name]
    errors = []
    for seed in range(_DRAWS.value):
        batch = tasks(np.float64 if _FLOAT64.value else np.float32, seed)
        params, by_task = ours(batch, 1)
        _, together = ours(batch, _TASKS.value)
        exact = (
            jax.tree.map(np.float64, params),
            batch._replace(x_s=np.float64(batch.x_s), x_q=np.float64(batch.x_q)),
        )
        for name, run in runs.items():
            want = theirs(run, *exact)
            errors.append((off(by_task, want), off(together, want)))
            a, b = errors[-1]
            print(f'{seed}, {name}: {a:.1e} task by task, {b:.1e} by vmap', end='')
            own = 0.0 if _FLOAT64.value else off(theirs(run, params, batch), want)
            print(f'; its own {own:.1e}' if own else '')
    middle = np.median(errors, axis=0)
    print(f'median: {middle[0]:.1e} task by task, {middle[1]:.1e} by vmap')
    if not middle.max() < (limit := 1e-9 if _FLOAT64.value else 1e-4):
        sys.exit(f'the relative difference, {middle.max():.1e}, is above {limit:.0e}')


def off(got: dict, want: dict) -> float:
    """The largest difference, relative to the largest entry of its parameter."""
    error = jax.tree.map(lambda a, b: np.abs(a - b).max() / np.abs(b).max(), got, want)
    return max(jax.tree.leaves(error))


if __name__ == '__main__':
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    app.run(main)
