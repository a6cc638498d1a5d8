"""Images/s of every frozen encoder beside PyTorch running the same net, in one process.

    python experiments/bench_encoders.py --encoders=efficientnet_lite0,resnet50

Needs torch, torchvision and transformers (pip install -e '.[dev]'). Both run the same weights
(random where the speed does not depend on them) on the same batch with as many threads; rounds
alternate, since a machine's speed changes. One line of JSON an encoder:

  ours_per_s, torch_per_s   images (or texts) a second, median over the rounds
  ratio                     median over the rounds of torch's seconds / ours; above 1 we are faster
  *_cpu_ms                  CPU time of one item over all threads, the least of the rounds
  difference                max |ours - theirs| / max |theirs|

PyTorch runs eager under inference_mode, in the faster of its two memory layouts (`layout`). On a
machine that is busy with other work read the CPU times of one thread each (taskset -c 1 python ...
--threads=1): PyTorch's threads spin while they wait for each other, which counts as CPU time.
"""

import contextlib
import json
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import app, flags
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from anyshot_jax.encoders import efficientnet_lite, minilm, resnet, vit_weights
from anyshot_jax.encoders.catalogue import VITS

_ENCODERS = flags.DEFINE_list('encoders', [], 'Names of ENCODERS; all when empty.')
_BATCH = flags.DEFINE_integer('batch', 32, 'Items in one call.')
_ROUNDS = flags.DEFINE_integer('rounds', 7, 'Rounds, each runs both once.')
_THREADS = flags.DEFINE_integer('threads', 2, 'CPU devices of ours, threads of theirs.')
_TOKENS = flags.DEFINE_integer('tokens', 32, 'Tokens of a text.')


class Pair(NamedTuple):
    """The same net twice."""

    ours: Callable  # (params, *inputs) -> [N, D]
    params: Any
    theirs: Callable  # (model, *inputs as torch tensors) -> [N, D]
    model: Any
    inputs: tuple[np.ndarray, ...]  # images NHWC


def lite0(batch: int) -> Pair:
    import torch

    class Conv(torch.nn.Sequential):
        """TensorFlow's SAME padding, convolution, batch norm and maybe ReLU6."""

        def __init__(self, c, o, k, stride=1, groups=1, act=True):
            conv = torch.nn.Conv2d(
                c, o, k, stride, 0 if stride == 2 else k // 2, groups=groups, bias=False
            )
            parts = [conv, torch.nn.BatchNorm2d(o, eps=1e-3)]
            if stride == 2:  # maps of even size
                parts.insert(0, torch.nn.ZeroPad2d(((k - 2) // 2, (k - 1) // 2) * 2))
            super().__init__(*parts, *([torch.nn.ReLU6()] if act else []))

    class Block(torch.nn.Module):
        def __init__(self, c, o, expand, k, stride):
            super().__init__()
            wide = c * expand
            first = [Conv(c, wide, 1)] if expand > 1 else []
            self.parts = torch.nn.Sequential(
                *first, Conv(wide, wide, k, stride, wide), Conv(wide, o, 1, act=False)
            )
            self.add = stride == 1 and c == o

        def forward(self, x):
            return self.parts(x) + x if self.add else self.parts(x)

    net: Any = efficientnet_lite.EfficientNetLite()
    blocks, c = [], net.stem
    for expand, o, repeats, stride, k in net.stages:
        for j in range(repeats):
            blocks.append(Block(c, o, expand, k, stride if j == 0 else 1))
            c = o
    stem, head = Conv(3, net.stem, 3, 2), Conv(c, net.head, 1)
    model = torch.nn.Sequential(stem, *blocks, head, torch.nn.AdaptiveAvgPool2d(1))
    model = _settled(model.append(torch.nn.Flatten()), batch)

    tensors = {}

    def name(conv, norm, part):
        for found in part:
            if isinstance(found, torch.nn.Conv2d):
                tensors[f'{conv}.weight'] = found.weight
            if isinstance(found, torch.nn.BatchNorm2d):
                tensors.update({f'{norm}.{k}': v for k, v in found.state_dict().items()})

    name('_conv_stem', '_bn0', stem)
    name('_conv_head', '_bn1', head)
    for i, block in enumerate(blocks):
        kinds = (('expand', 0), ('depthwise', 1), ('project', 2))[-len(block.parts) :]
        for (kind, number), part in zip(kinds, block.parts, strict=True):
            name(f'_blocks.{i}._{kind}_conv', f'_blocks.{i}._bn{number}', part)
    params = efficientnet_lite.convert({k: v.detach().numpy() for k, v in tensors.items()})
    ours = lambda params, x: net.apply(params, x)['features']
    return Pair(ours, params, lambda model, x: model(x), model, (_images(batch),))


def residual(batch: int, name: str) -> Pair:
    import torch
    import torchvision

    model = getattr(torchvision.models, name)(weights=None)
    net, state = getattr(resnet, name)(), _arrays(_settled(model, batch))
    model.fc = torch.nn.Identity()
    ours = lambda params, x: net.apply(params, x)['features']
    params = resnet.convert(state, net)
    return Pair(ours, params, lambda model, x: model(x), model, (_images(batch),))


def vision(batch: int, name: str) -> Pair:
    import transformers

    vit = VITS[name]
    sizes = {'hidden_size': vit.sizes['width'], 'num_hidden_layers': vit.sizes['layers']}
    sizes |= {'num_attention_heads': vit.sizes['num_heads'], 'patch_size': vit.sizes['patch']}
    hidden = {'intermediate_size': vit.sizes['hidden']}
    kind = {'dinov2': 'Dinov2', 'dinov2_reg': 'Dinov2WithRegisters', 'dinov3': 'DINOv3ViT'}
    if vit.family == 'clip':
        config = transformers.CLIPVisionConfig(
            projection_dim=vit.sizes['features'], **sizes, **hidden
        )
        model = transformers.CLIPVisionModelWithProjection(config)
    elif vit.family == 'siglip':
        model = transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**sizes, **hidden))
    else:
        sizes |= hidden | {'num_register_tokens': 4} if vit.family == 'dinov3' else {}
        config = getattr(transformers, f'{kind[vit.family]}Config')(**sizes)
        model = getattr(transformers, f'{kind[vit.family]}Model')(config)
    net: Any = vit.net()
    model = model.eval()
    params = vit_weights.convert(_arrays(model), net, vit.family)
    ours = lambda params, x: net.apply(params, x)['features']
    last = 'image_embeds' if vit.family == 'clip' else 'pooler_output'
    return Pair(ours, params, lambda model, x: getattr(model(x), last), model, (_images(batch),))


def minilm_text(batch: int) -> Pair:
    from transformers import BertConfig, BertModel

    config = BertConfig(hidden_size=384, num_hidden_layers=6, intermediate_size=1536)
    model = BertModel(config, add_pooling_layer=False).eval()
    net = minilm.MiniLM()

    def theirs(model, tokens, mask):
        x, mask = model(tokens, mask).last_hidden_state, mask[..., None]
        return (x * mask).sum(1) / mask.sum(1)

    tokens = np.random.default_rng(0).integers(1000, 30000, (batch, _TOKENS.value))
    inputs = tokens.astype(np.int32), np.ones(tokens.shape, np.int32)
    return Pair(net.apply, minilm.convert(_arrays(model), net), theirs, model, inputs)


ENCODERS: dict[str, Callable[[int], Pair]] = {
    'efficientnet_lite0': lite0,
    'resnet50': partial(residual, name='resnet50'),
    'wide_resnet50_2': partial(residual, name='wide_resnet50_2'),
    **{name: partial(vision, name=name) for name in VITS},
    'minilm_l6': minilm_text,
}


def _images(batch: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((batch, 224, 224, 3), np.float32)


def _arrays(model: Any) -> dict[str, np.ndarray]:
    return {k: v.numpy() for k, v in model.state_dict().items()}


def _settled(model: Any, batch: int) -> Any:
    """Running statistics of the batch, without which random nets overflow or fade; then eval."""
    import torch

    for m in model.modules():
        if isinstance(m, torch.nn.BatchNorm2d):
            m.momentum = None  # the plain mean
    with torch.no_grad():
        model.train()(torch.from_numpy(_images(min(batch, 4))).permute(0, 3, 1, 2))
    return model.eval()


def run_ours(pair: Pair) -> Callable[[], np.ndarray]:
    """A call of the jitted net, the batch split over the CPU's devices."""
    mesh = Mesh(np.array(jax.local_devices()), ('batch',))
    everywhere, split = PartitionSpec(), PartitionSpec('batch')
    specs = (everywhere, *(split for _ in pair.inputs))
    apply = jax.jit(jax.shard_map(pair.ours, mesh=mesh, in_specs=specs, out_specs=split))
    values = (pair.params, *pair.inputs)
    args = [jax.device_put(v, NamedSharding(mesh, s)) for v, s in zip(values, specs, strict=True)]
    return lambda: jax.block_until_ready(apply(*args))


def run_theirs(pair: Pair) -> dict[str, Callable[[], np.ndarray]]:
    """The same by PyTorch, for each memory layout that images can have."""
    import torch

    tensors = [torch.from_numpy(x) for x in pair.inputs]
    if tensors[0].ndim == 4:
        x = tensors[0].permute(0, 3, 1, 2)
        inputs = {'NCHW': [x.contiguous()], 'NHWC': [x]}
    else:
        inputs = {'text': tensors}

    def run(inputs):
        with torch.inference_mode():
            return pair.theirs(pair.model, *inputs).numpy()

    return {name: partial(run, x) for name, x in inputs.items()}


def timed(call: Callable) -> tuple[float, float]:
    """Seconds on the clock and of CPU time over all threads."""
    time.sleep(0.05)  # until the other's threads have stopped to spin
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


def measure(name: str, batch: int) -> dict[str, Any]:
    """One encoder's line."""
    pair = ENCODERS[name](batch)
    ours, layouts = run_ours(pair), run_theirs(pair)
    mine = np.asarray(ours())
    for call in (ours, *layouts.values(), *layouts.values()):
        found = call()
    best = min(layouts, key=lambda k: min(timed(layouts[k])[1] for _ in range(3)))
    rounds = [(timed(ours), timed(layouts[best])) for _ in range(_ROUNDS.value)]
    median = statistics.median
    return {
        'encoder': name,
        'ours_per_s': round(median([batch / a[0] for a, _ in rounds]), 2),
        'torch_per_s': round(median([batch / b[0] for _, b in rounds]), 2),
        'ratio': round(median([b[0] / a[0] for a, b in rounds]), 3),
        'ours_cpu_ms': round(1e3 * min(a[1] for a, _ in rounds) / batch, 2),
        'torch_cpu_ms': round(1e3 * min(b[1] for _, b in rounds) / batch, 2),
        'layout': best,
        'batch': batch,
        'threads': _THREADS.value,
        'difference': float(np.abs(mine - found).max() / np.abs(found).max()),
        'load': round(os.getloadavg()[0], 1),
    }


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f'unexpected arguments: {argv[1:]}')
    jax.config.update('jax_num_cpu_devices', _THREADS.value)
    import torch

    for op in ('nms', 'qnms'):  # a torchvision built for another torch, too, then has its nets
        with contextlib.suppress(RuntimeError):  # is there
            torch.library.define(f'torchvision::{op}', '(Tensor a, Tensor b, float c) -> Tensor')
    torch.manual_seed(0)
    torch.set_num_threads(_THREADS.value)
    for name in _ENCODERS.value or ENCODERS:
        print(json.dumps(measure(name, _BATCH.value)), flush=True)


if __name__ == '__main__':
    app.run(main)
