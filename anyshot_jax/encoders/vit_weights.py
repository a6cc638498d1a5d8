"""Vision transformers' weights: tensors by transformers' or the authors' names into parameters."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from anyshot_jax.encoders.authors_names import to_transformers
from anyshot_jax.encoders.positions import resize_grid
from anyshot_jax.encoders.transformer import dense, layer_params, layer_shapes, norm
from anyshot_jax.encoders.vit import VisionTransformer
from anyshot_jax.encoders.weights import check_names
from anyshot_jax.types import ArgumentError


class Family(NamedTuple):
    """Tensor names of one family (in transformers), and shared settings of its nets."""

    patches: str  # of the kernel [width, 3, patch, patch] and the bias
    layer: str  # what comes before a layer's number
    parts: dict[str, str]  # of transformer.PARTS
    norm_out: str
    class_token: str = ''
    position: str = ''  # '': rotary
    registers: str = ''
    norm_in: str = ''
    pool: str = ''  # of the head by attention
    project: str = ''
    ignore: str = ''  # regular expression of what may be there, too
    antialias: bool = False  # how positions are resized


_SCALES = {f'scale{i}': f'layer_scale{i}.lambda1' for i in (1, 2)}
_DINOV2 = Family(
    patches='embeddings.patch_embeddings.projection',
    layer='encoder.layer.',
    parts={
        **{k: f'attention.attention.{k}' for k in ('query', 'key', 'value')},
        **{'out': 'attention.output.dense', 'norm1': 'norm1', 'norm2': 'norm2'},
        **{'up': 'mlp.fc1', 'down': 'mlp.fc2'},
        **_SCALES,
    },
    norm_out='layernorm',
    class_token='embeddings.cls_token',
    position='embeddings.position_embeddings',
    ignore=r'embeddings\.mask_token|classifier\..*',
)
_DINOV3 = Family(
    patches='embeddings.patch_embeddings',
    layer='layer.',
    parts={
        **{k: f'attention.{k[0]}_proj' for k in ('query', 'key', 'value', 'out')},
        **{'norm1': 'norm1', 'norm2': 'norm2', 'up': 'mlp.up_proj', 'down': 'mlp.down_proj'},
        **_SCALES,
    },
    norm_out='norm',
    class_token='embeddings.cls_token',
    registers='embeddings.register_tokens',
    ignore=r'embeddings\.mask_token|layer\.\d+\.attention\.k_proj\.bias',
)
_TWO_TOWERS: dict[str, Any] = {
    'patches': 'vision_model.embeddings.patch_embedding',
    'layer': 'vision_model.encoder.layers.',
    'parts': {
        **{k: f'self_attn.{k[0]}_proj' for k in ('query', 'key', 'value')},
        **{'out': 'self_attn.out_proj', 'norm1': 'layer_norm1', 'norm2': 'layer_norm2'},
        **{'up': 'mlp.fc1', 'down': 'mlp.fc2'},
    },
    'norm_out': 'vision_model.post_layernorm',
    'position': 'vision_model.embeddings.position_embedding.weight',
    'ignore': r'text_(model|projection)\..*|logit_(scale|bias)|.*\.embeddings\.position_ids',
}
FAMILIES = {
    'dinov2': _DINOV2,
    'dinov2_reg': _DINOV2._replace(registers='embeddings.register_tokens', antialias=True),
    'dinov3': _DINOV3,
    'siglip': Family(**_TWO_TOWERS, pool='vision_model.head'),
    'clip': Family(
        **_TWO_TOWERS,
        class_token='vision_model.embeddings.class_embedding',
        norm_in='vision_model.pre_layrnorm',  # so spelt in the original
        project='visual_projection',
    ),
}
_FIELDS: dict[str, dict[str, Any]] = {
    'dinov2': {'layer_scale': True},
    'dinov2_reg': {'layer_scale': True, 'registers': 4},
    'dinov3': {'layer_scale': True, 'registers': 4, 'rotary': True, 'eps': 1e-5},
    'siglip': {'class_token': False, 'activation': 'gelu_tanh'},
    'clip': {'norm_in': True, 'activation': 'quick_gelu', 'eps': 1e-5},
}


def net_of_family(family: str, **sizes: Any) -> VisionTransformer:
    """The net of a family: sizes are fields of `VisionTransformer`."""
    return VisionTransformer(**{**_FIELDS[family], **sizes})


def family_of(tensors: Mapping[str, np.ndarray]) -> str:
    """The family whose tensors these are, '' if none's; by transformers' names."""
    if 'vision_model.head.probe' in tensors:
        return 'siglip'
    if 'vision_model.embeddings.class_embedding' in tensors:
        return 'clip'
    if 'embeddings.patch_embeddings.projection.weight' in tensors:
        scaled = any(name.endswith('layer_scale1.lambda1') for name in tensors)
        registers = 'embeddings.register_tokens' in tensors
        return ('dinov2_reg' if registers else 'dinov2') if scaled else ''
    return 'dinov3' if 'embeddings.patch_embeddings.weight' in tensors else ''


def sizes_of(tensors: Mapping[str, np.ndarray], family: str) -> tuple[int, int, int]:
    """(width, layers, patch) of the net whose tensors these are."""
    names = FAMILIES[family]
    kernel = tensors[f'{names.patches}.weight']
    numbers = {n[len(names.layer) :].split('.')[0] for n in tensors if n.startswith(names.layer)}
    return kernel.shape[0], len(numbers), kernel.shape[-1]


def own_size(tensors: Mapping[str, np.ndarray], family: str, patch: int) -> int:
    """Pixels of a side for which the positions were learned; 0 without such, or if no square."""
    names = FAMILIES[family]
    if names.position not in tensors:
        return 0
    place = tensors[names.position]
    if not place.size:
        return 0
    return _side(place.size // place.shape[-1] - bool(names.class_token)) * patch


def _side(patches: int) -> int:
    side = math.isqrt(max(patches, 0))
    return side if side * side == patches else 0


def shapes(net: VisionTransformer, family: str, side: int = 0) -> dict[str, tuple[int, ...]]:
    """Shapes of the net's tensors by transformers' names.

    Args:
      side: positions on each side that were learned; 0: as many as the net has patches.
    """
    names, width = FAMILIES[family], net.width
    wanted: dict[str, tuple[int, ...]] = {
        f'{names.patches}.weight': (width, 3, net.patch, net.patch)
    }
    if not net.norm_in:
        wanted[f'{names.patches}.bias'] = (width,)
    for name in filter(None, (names.norm_in, names.norm_out)):
        wanted |= {f'{name}.weight': (width,), f'{name}.bias': (width,)}
    two_towers = names.norm_in or names.pool  # these tensors have no leading axis there
    if names.class_token:
        wanted[names.class_token] = (width,) if two_towers else (1, 1, width)
    if names.registers:
        wanted[names.registers] = (1, net.registers, width)
    if names.position:
        rows = (side or net.size // net.patch) ** 2 + net.class_token
        wanted[names.position] = (rows, width) if two_towers else (1, rows, width)
    if names.pool:
        wanted |= _pool_shapes(names.pool, width, net.hidden)
    if names.project:
        wanted[f'{names.project}.weight'] = (net.features, width)
    for layer in _layers(net, names):
        of_layer = layer_shapes(layer, width, net.hidden)
        if net.rotary:  # its keys have no bias
            of_layer.pop(f'{layer["key"]}.bias')
        wanted |= of_layer
    return wanted


def check(tensors: Mapping[str, np.ndarray], net: VisionTransformer, family: str) -> None:
    """Refuse tensors, by transformers' names, that aren't those of `net`.

    Raises:
      InputError: names the first missing tensor and the first unexpected one, or the first of
        another shape.
    """
    wanted, ignore = shapes(net, family, own_size(tensors, family, 1)), FAMILIES[family].ignore
    check_names(tensors, wanted, what=f'a vision transformer ({family})', ignore=ignore)


def _layers(net: VisionTransformer, names: Family) -> list[dict[str, str]]:
    """The name of every part of every layer."""
    return [
        {part: f'{names.layer}{i}.{name}' for part, name in names.parts.items()}
        for i in range(net.layers)
    ]


def convert(
    tensors: Mapping[str, np.ndarray], net: VisionTransformer, family: str
) -> dict[str, Any]:
    """Parameters of `net` from a state dict; positions are brought to the net's size.

    Args:
      tensors: of transformers' models (Dinov2Model, Dinov2WithRegistersModel, DINOv3ViTModel,
        SiglipModel, CLIPModel), or by the authors' names; a text tower may be there, too.
    Returns:
      {'params': ...} for `net.apply`, NumPy arrays in float32.
    Raises:
      InputError: a tensor is missing, unexpected or of another shape; names it.
    """
    names, tensors = FAMILIES[family], to_transformers(tensors)
    check(tensors, net, family)
    width, first = net.width, int(net.class_token)
    get = lambda name: np.asarray(tensors[name], np.float32)
    kernel = get(f'{names.patches}.weight').transpose(2, 3, 1, 0).reshape(-1, width)
    params: dict[str, Any] = {
        'patches': {'kernel': np.ascontiguousarray(kernel)},
        'norm_out': norm(tensors, names.norm_out),
    }
    if not net.norm_in:
        params['patches']['bias'] = get(f'{names.patches}.bias')
    else:
        params['norm_in'] = norm(tensors, names.norm_in)
    if names.class_token:
        params['class'] = get(names.class_token).reshape(width)
    if names.registers:
        params['registers'] = get(names.registers)[0]
    if names.position:
        place = get(names.position).reshape(-1, width)
        side = own_size(tensors, family, 1)
        grid = place[first:].reshape(side, side, width)
        grid = resize_grid(grid, net.size // net.patch, antialias=names.antialias)
        params['position'] = np.concatenate([place[:first], grid.reshape(-1, width)])
    if names.pool:
        params['pool'] = _pool_params(tensors, names.pool, width)
    if names.project:
        params['project'] = dense(tensors, names.project)
    if net.rotary:  # the authors' files have biases of keys that are masked
        tensors = {k: v for k, v in tensors.items() if not k.endswith('.k_proj.bias')}
    for i, layer in enumerate(_layers(net, names)):
        params[f'layer_{i}'] = layer_params(tensors, layer)
    return {'params': params}


def _pool_shapes(head: str, width: int, hidden: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        f'{head}.probe': (1, 1, width),
        f'{head}.attention.in_proj_weight': (3 * width, width),
        f'{head}.attention.in_proj_bias': (3 * width,),
        f'{head}.layernorm.weight': (width,),
        f'{head}.layernorm.bias': (width,),
    }
    pairs = {'attention.out_proj': (width, width), 'mlp.fc1': (hidden, width)}
    for name, shape in (pairs | {'mlp.fc2': (width, hidden)}).items():
        shapes |= {f'{head}.{name}.weight': shape, f'{head}.{name}.bias': shape[:1]}
    return shapes


def _pool_params(tensors: Mapping[str, np.ndarray], head: str, width: int) -> dict[str, Any]:
    kernel = np.asarray(tensors[f'{head}.attention.in_proj_weight'], np.float32).T
    bias = np.asarray(tensors[f'{head}.attention.in_proj_bias'], np.float32)
    part = lambda a, b: {'kernel': np.ascontiguousarray(kernel[:, a:b]), 'bias': bias[a:b]}
    return {
        'probe': np.asarray(tensors[f'{head}.probe'], np.float32).reshape(width),
        'query': part(0, width),
        'key_value': part(width, 3 * width),
        'out': dense(tensors, f'{head}.attention.out_proj'),
        'norm': norm(tensors, f'{head}.layernorm'),
        'up': dense(tensors, f'{head}.mlp.fc1'),
        'down': dense(tensors, f'{head}.mlp.fc2'),
    }


def check_size(size: int, patch: int) -> int:
    """The largest multiple of the patch that is not above `size`.

    Raises:
      ArgumentError: there is none.
    """
    if size < patch:
        raise ArgumentError('size', f'={size}: such images hold no patch of {patch} pixels')
    return size // patch * patch
