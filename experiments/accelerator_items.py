"""Items 1 and 6 to 9 of experiments/accelerator.py: parts, encoders, searches, numbers."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from accelerator import Bench, Record
from accelerator_steps import data_of, maml, populations, protonet, schedules, short

from anyshot_jax import config as configs
from anyshot_jax.encoders import efficientnet_lite, resnet, vit
from anyshot_jax.episodes.episodic import episode_accuracies
from anyshot_jax.nets import conv as convolution
from anyshot_jax.ops.coreset import _greedy, _plain
from anyshot_jax.ops.distance import squared_euclidean
from anyshot_jax.ops.neighbours import nearest
from anyshot_jax.ops.transport import sinkhorn
from anyshot_jax.runtime import ahead, devices
from anyshot_jax.training import population
from anyshot_jax.training.step import make_population_step
from anyshot_jax.types import Data

HERE = Path(__file__).parent


def normal(bench: Bench, *shape: int, dtype=jnp.float32):
    """Numbers on the device, or of a program that is only compiled their shape."""
    if bench.machine:
        return jax.ShapeDtypeStruct(shape, dtype)
    return jax.random.normal(jax.random.key(0), shape, jnp.float32).astype(dtype)


# 1


def by_patches(x, w):
    pads = (((w.shape[0] - 1) // 2, w.shape[0] // 2),) * 2
    p = convolution.patches(x, w.shape[:2], pads, 1)
    return convolution.matmul(p, w.reshape(-1, w.shape[3])).astype(x.dtype)


def by_library(x, w):
    dims = ('NHWC', 'HWIO', 'NHWC')
    return jax.lax.conv_general_dilated(x, w, (1, 1), 'SAME', dimension_numbers=dims)


def forms(bench: Bench) -> Iterator[Record]:
    """Decides nets/conv.py, GPU_BY_TASK: grouped by JAX and by the pair, rows, patches."""
    tasks, images = bench.size(32, 3), bench.size(80, 8)
    layers = ((14, 64), (28, 1), (7, 64))
    for precision, dtype in (
        ('default', 'float32'),
        ('highest', 'float32'),
        ('default', 'bfloat16'),
    ):
        for size, channels in (
            layers if (precision, dtype) == ('default', 'float32') else layers[:1]
        ):
            x = normal(bench, tasks, images, size, size, channels, dtype=dtype)
            w = normal(bench, tasks, 3, 3, channels, 64, dtype=dtype)
            for form in ('library', 'grouped', 'rows', 'patches'):
                for order, f in orders(form).items():
                    convolution.GPU_BY_TASK = form if form in ('grouped', 'rows') else 'rows'
                    with jax.default_matmul_precision(precision):
                        made = bench.time(jax.vmap(f), x, w)
                    yield {'form': form, 'order': order, 'layer': f'{size}x{size}x{channels}',
                           'precision': precision, 'dtype': dtype, 'tasks': tasks,
                           'images': images, **made}  # fmt: skip
    convolution.GPU_BY_TASK = 'rows'


def orders(form: str) -> dict[str, Callable]:
    conv = {'library': by_library, 'patches': by_patches}.get(form, convolution.conv)
    value = lambda x, w: jnp.sum(jnp.sin(conv(x, w).astype(jnp.float32)))
    first = jax.grad(value, (0, 1))
    second = jax.grad(
        lambda x, w: sum(jnp.sum(jnp.sin(g.astype(jnp.float32))) for g in first(x, w)), (0, 1)
    )
    return {'forward': conv, 'both derivatives': first, 'second order': second}


# 6 to 9


def encoders(bench: Bench) -> Iterator[Record]:
    """Images/s of random weights, images on the device and coming from the host."""
    size = 224 if not bench.tenth else 64
    nets = {
        'efficientnet_lite0': efficientnet_lite.EfficientNetLite(),
        'resnet50': resnet.resnet50(),
        'wide_resnet50_2': resnet.wide_resnet50_2(),
        'vit_b32': vit.VisionTransformer(),
    }
    for name, net in nets.items():
        size = 224 if name.startswith('vit') else size
        like = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
        shapes = jax.eval_shape(net.init, jax.random.key(0), like)
        for dtype in ('float32', 'bfloat16'):
            params = jax.tree.map(
                lambda s, dtype=dtype: normal(bench, *s.shape, dtype=dtype), shapes
            )
            for batch in (64, 256, 1024):
                batch = bench.size(batch, 2)
                images = np.zeros((batch, size, size, 3), np.uint8)
                apply = lambda p, x, net=net, dtype=dtype: net.apply(p, x.astype(dtype) / 255)
                case = {'net': name, 'dtype': dtype, 'images': batch, 'size': size}
                on_device = images if bench.machine else jax.device_put(images)
                yield {**case, **bench.time(apply, params, on_device, count=batch)}
                if not bench.machine:
                    call = jax.jit(apply)
                    record = bench.repeat(partial(from_host, call, params, images), batch)
                    yield {**case, 'from': 'host', **record}
                if bench.tenth:
                    break


def from_host(call: Callable, params: Any, images: np.ndarray) -> Any:
    return call(params, jax.device_put(images))


def patchcore(bench: Bench) -> Iterator[Record]:
    n, k = bench.size(163_000, 1000), bench.size(1630, 16)
    x = normal(bench, n, 128)
    rows = jnp.arange(10)
    for name, choose in (
        ('plain', lambda x: _plain(x, rows, num=k)),
        ('lazy', lambda x: _greedy(x, rows, num=k, block=min(2048, n))),
    ):
        yield {'coreset': name, 'from': n, 'to': k, **bench.time(choose, x)}
    queries, bank = bench.size(50_000), bench.size(16_000)
    args = normal(bench, queries, 448), normal(bench, bank, 448)
    yield {'nearest of': bank, **bench.time(nearest, *args, count=queries)}


def evaluation(bench: Bench) -> Iterator[Record]:
    """A thousand episodes of MAML, so many at once."""
    config = configs.check(short('maml', net__features=bench.size(64, 8), method__eval_steps=3))
    host = data_of()
    method = configs.find('methods', 'maml').build(config, host)
    count, place = bench.size(1000, 20), [bench.device()]
    if bench.machine:
        data = ahead.shapes(host['test'], place)
        state = ahead.shapes(jax.eval_shape(method.init, jax.random.key(0), host), place)
        key = ahead.shapes(jax.random.key(0), place)
    else:
        data = devices.on_all_devices(host['test'], place)
        state = devices.on_all_devices(method.init(jax.random.key(0), Data({'test': data})), place)
        key = devices.on_all_devices(jax.random.key(0), place)
    shape: dict[str, Any] = {'tasks': ((5, 1),), 'queries': 15, 'count': count, 'devices': place}
    for most in (1, 16, 64, 256):
        devices.AT_ONCE = bench.size(most)
        run = lambda *args: episode_accuracies(method.predict, *args, **shape)
        yield {'episodes': count, 'at_once': devices.AT_ONCE,
               **bench.time(run, state, data, key, count=count)}  # fmt: skip


def numbers(bench: Bench) -> Iterator[Record]:
    """Errors beside float64 on the host, and whether two runs of a step have the same bits."""
    if bench.machine:
        for f, *shapes in (
            (squared_euclidean, (300, 1280), (20, 1280)), (sinkhorn, (300, 20), (300,), (20,))
        ):  # fmt: skip
            yield {'op': f.__name__, **bench.time(f, *(normal(bench, *s) for s in shapes))}
        return
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 1280)) + 3
    bank = rng.normal(size=(20, 1280)) + 3
    exact = np.square(x[:, None] - bank[None]).sum(-1)
    got = jax.jit(squared_euclidean)(jnp.float32(x), jnp.float32(bank))
    yield {'op': 'squared_euclidean', 'largest_error': float(np.abs(got - exact).max())}
    plain = jax.jit(lambda a, b: a @ b.T)(jnp.float32(x), jnp.float32(bank))
    yield {'op': 'product, default', 'largest_error': float(np.abs(plain - x @ bank.T).max())}
    plan, _ = jax.jit(sinkhorn)(jnp.float32(exact / exact.max()), jnp.ones(300), jnp.ones(20))
    yield {'op': 'sinkhorn, sums', 'largest_error': float(np.abs(plan.sum(1) - 1).max())}
    config = short('maml', batch_size=bench.size(32, 2), net__features=bench.size(64, 8))
    program = (
        'import sys; sys.path[:0] = sys.argv[1:]\n'
        'import accelerator_items as items\n'
        'print(items.bits_of_a_step(int(sys.argv[3])))'
    )
    for flag in ('', '--xla_gpu_deterministic_ops=true'):
        env = {**os.environ, 'XLA_FLAGS': flag, 'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'}
        command = [
            sys.executable,
            '-c',
            program,
            str(HERE),
            str(HERE.parent),
            str(config.batch_size),
        ]
        if flag and jax.default_backend() == 'cpu':  # which knows no such flag
            continue
        bits = [
            subprocess.run(command, env=env, capture_output=True, text=True).stdout for _ in '12'
        ]
        yield {'op': 'two runs of ten steps', 'flag': flag, 'same_bits': bits[0] == bits[1] != ''}


def bits_of_a_step(tasks: int) -> str:
    """A digest of MAML's parameters after ten steps."""
    config = short('maml', batch_size=tasks, net__features=8, num_steps=10)
    config.steps_per_call = 10
    host, place = data_of(), jax.devices()[:1]
    everyone = population.build(configs.check(config), host)
    data = devices.on_all_devices(host, place)
    states = devices.on_all_devices(everyone.init(data), place)
    step = make_population_step(everyone, batch_size=tasks, steps_per_call=10, devices=place)
    states, _ = step(states, data)
    flat = np.concatenate([np.ravel(a) for a in jax.tree.leaves(states.params)])
    return f'{flat.tobytes().hex()[:64]} {optax.tree.norm(states.params)}'


ITEMS = {1: forms, 2: maml, 3: schedules, 4: protonet, 5: populations, 6: encoders, 7: patchcore,
         8: evaluation, 9: numbers}  # fmt: skip
