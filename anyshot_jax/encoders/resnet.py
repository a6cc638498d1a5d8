"""Frozen residual nets with pretrained weights: ResNet-18, ResNet-50, WideResNet-50-2.

He et al., "Deep residual learning for image recognition", CVPR 2016, table 1; Zagoruyko and
Komodakis, "Wide residual networks", BMVC 2016. As torchvision has them: zero padding on both
sides, and the stride of a bottleneck in its 3x3 convolution. `nets/resnet12.py` is the trainable
one of few-shot learning.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array, lax

from anyshot_jax.encoders.weights import check_names
from anyshot_jax.encoders.winograd import pays, winograd

EPS = 1e-5  # of batch norm


class FoldedConv(nn.Module):
    """Convolution and the batch norm after it in one: kernel [k, k, C, O] and bias [O].

    [N, H, W, C] -> [N, ceil(H / stride), ceil(W / stride), O], zero padding k // 2 on all sides.
    """

    features: int
    kernel_size: int = 3
    stride: int = 1

    @nn.compact
    def __call__(self, x: Array) -> Array:
        k, s = self.kernel_size, self.stride
        init = nn.initializers.he_normal()
        w = self.param('kernel', init, (k, k, x.shape[-1], self.features), jnp.float32)
        b = self.param('bias', nn.initializers.zeros, (self.features,), jnp.float32)
        w = w.astype(x.dtype)
        if pays(x, w, s):
            y = winograd(x, w)
        else:
            pads = ((k // 2, k // 2),) * 2
            dims = ('NHWC', 'HWIO', 'NHWC')
            y = lax.conv_general_dilated(x, w, (s, s), pads, dimension_numbers=dims)
        return y + b.astype(x.dtype).reshape(1, 1, 1, -1)


class Block(nn.Module):
    """Residual block; the shortcut is a 1x1 convolution where the shape changes.

    `hidden` are the features inside, `features` those that come out. Basic blocks have two 3x3
    convolutions (and hidden = features), bottlenecks 1x1, 3x3, 1x1.
    """

    features: int
    hidden: int
    stride: int
    bottleneck: bool

    @nn.compact
    def __call__(self, x: Array) -> Array:
        if self.bottleneck:
            y = nn.relu(FoldedConv(self.hidden, 1, name='conv1')(x))
            y = nn.relu(FoldedConv(self.hidden, 3, self.stride, name='conv2')(y))
            y = FoldedConv(self.features, 1, name='conv3')(y)
        else:
            y = nn.relu(FoldedConv(self.hidden, 3, self.stride, name='conv1')(x))
            y = FoldedConv(self.features, 3, name='conv2')(y)
        if self.stride > 1 or x.shape[-1] != self.features:
            x = FoldedConv(self.features, 1, self.stride, name='downsample')(x)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """Residual net without its classifier, for inference.

    Args of the call:
      x: images [N, H, W, 3], scaled and normalised, float32 or bfloat16 (it computes in that).
    Returns:
      {'stride4', 'stride8', 'stride16', 'stride32': maps [N, ceil(H / s), ceil(W / s), .],
      'features': [N, D], the mean of the last map over space}, all in the dtype of x.
    """

    stages: tuple[int, ...] = (2, 2, 2, 2)  # blocks of each
    bottleneck: bool = False
    width_factor: int = 1  # of the features inside bottlenecks
    width: int = 64  # of the first stage; every further one doubles it

    @nn.compact
    def __call__(self, x: Array) -> dict[str, Array]:
        y = nn.relu(FoldedConv(self.width, 7, 2, name='conv1')(x))
        y = _max_pool(y)
        maps = {}
        for i, blocks in enumerate(self.stages):
            width = self.width << i
            features, hidden = (
                (4 * width, width * self.width_factor) if self.bottleneck else (width, width)
            )
            for j in range(blocks):
                stride = 2 if i and not j else 1
                y = Block(features, hidden, stride, self.bottleneck, name=f'layer{i + 1}_{j}')(y)
            maps[f'stride{4 << i}'] = y
        return maps | {'features': y.mean((1, 2))}


def resnet18() -> ResNet:
    """11.2 million parameters, 512 features."""
    return ResNet((2, 2, 2, 2))


def resnet50() -> ResNet:
    """23.5 million parameters, 2048 features."""
    return ResNet((3, 4, 6, 3), bottleneck=True)


def wide_resnet50_2() -> ResNet:
    """66.8 million parameters, 2048 features."""
    return ResNet((3, 4, 6, 3), bottleneck=True, width_factor=2)


def convert(tensors: Mapping[str, np.ndarray], net: ResNet) -> dict[str, Any]:
    """Parameters of `net` from a torchvision state dict, batch norms folded into convolutions.

    Args:
      tensors: by torchvision's names: 'layer1.0.conv1.weight' [O, C, k, k],
        'layer1.0.bn1.running_mean' [O], ... The classifier 'fc.*' may be there and is left out.
    Returns:
      {'params': ...} for `net.apply`, NumPy arrays in float32.
    Raises:
      InputError: a tensor is missing, unexpected or of another shape; names it.
    """
    tree = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))['params']
    convs = {path[:-1]: p.shape for path, p in flatten_dict(tree).items() if path[-1] == 'kernel'}
    wanted: dict[str, tuple[int, ...]] = {}
    for path, (kh, kw, c, o) in convs.items():
        conv, norm = _torch_names(path)
        wanted[f'{conv}.weight'] = (o, c, kh, kw)
        wanted |= {f'{norm}.{s}': (o,) for s in ('weight', 'bias', 'running_mean', 'running_var')}
    ignore = r'fc\..*|.*num_batches_tracked'
    check_names(tensors, wanted, what='a torchvision ResNet', ignore=ignore)
    params = {}
    wide = {name: np.asarray(tensors[name], np.float64) for name in wanted}
    for path in convs:
        conv, norm = _torch_names(path)
        scale = wide[f'{norm}.weight'] / np.sqrt(wide[f'{norm}.running_var'] + EPS)
        shift = wide[f'{norm}.bias'] - wide[f'{norm}.running_mean'] * scale
        kernel = wide[f'{conv}.weight'].transpose(2, 3, 1, 0) * scale
        params[*path, 'kernel'] = np.ascontiguousarray(kernel, np.float32)
        params[*path, 'bias'] = shift.astype(np.float32)
    return {'params': unflatten_dict(params)}


def _torch_names(path: tuple[str, ...]) -> tuple[str, str]:
    """('layer1_0', 'conv2') -> 'layer1.0.conv2', 'layer1.0.bn2': a convolution and its norm."""
    name = '.'.join(path).replace('_', '.')
    if path[-1] == 'downsample':
        return f'{name}.0', f'{name}.1'
    return name, name.replace('conv', 'bn')


def _max_pool(x: Array) -> Array:
    """3x3, stride 2, padding 1. By slices: XLA:CPU's reduce_window takes four times as long."""
    pad = ((0, 0), (1, 1), (1, 1), (0, 0))
    x = jnp.pad(x, pad, constant_values=-jnp.inf)
    h, w = (x.shape[1] - 1) // 2, (x.shape[2] - 1) // 2
    x = _max3(*(x[:, i : i + 2 * h - 1 : 2] for i in range(3)))
    return _max3(*(x[:, :, i : i + 2 * w - 1 : 2] for i in range(3)))


def _max3(a: Array, b: Array, c: Array) -> Array:
    return jnp.maximum(jnp.maximum(a, b), c)
