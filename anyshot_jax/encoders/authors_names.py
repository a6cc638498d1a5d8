"""Tensors of vision transformers by their authors' names, renamed as transformers has them.

Read are the state dicts of facebookresearch/dinov2 and dinov3, of openai/CLIP (and open_clip's nets
of the same form), and the arrays of google-research/big_vision's SigLIP.
"""

import re
from collections.abc import Mapping

import numpy as np

Tensors = dict[str, np.ndarray]


def to_transformers(tensors: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """The same tensors by transformers' names; as they are where the names are no author's."""
    if 'patch_embed.proj.weight' in tensors and 'cls_token' in tensors:
        return _dino(tensors)
    if 'visual.conv1.weight' in tensors:
        return _clip(tensors)
    if any(name.startswith('params/img/') for name in tensors):
        return _siglip({n.removeprefix('params/'): a for n, a in tensors.items()})
    return _plain(tensors)


def _plain(tensors: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """Without the prefix that models with a head or other versions of the library put first."""
    for start in ('dinov2.', 'dinov2_with_registers.', 'dinov3_vit.'):
        if any(n.startswith(f'{start}embeddings.') for n in tensors):
            return {n.removeprefix(start): a for n, a in tensors.items()}
    if any(n.startswith('model.layer.') for n in tensors):  # DINOv3 as version 5 saves it
        return {n.removeprefix('model.'): a for n, a in tensors.items()}
    if 'embeddings.patch_embedding.weight' in tensors and 'post_layernorm.weight' in tensors:
        return {
            n if n.startswith('visual_') else f'vision_model.{n}': a for n, a in tensors.items()
        }
    if any('.attention.q_proj.' in n and n.startswith('encoder.layer.') for n in tensors):
        return {_older(n): a for n, a in tensors.items()}  # DINOv2 in memory in version 5
    return tensors


def _older(name: str) -> str:
    for new, old in (('q', 'query'), ('k', 'key'), ('v', 'value')):
        name = name.replace(f'.attention.{new}_proj.', f'.attention.attention.{old}.')
    return name.replace('.attention.o_proj.', '.attention.output.dense.')


_DINO = {  # of both versions
    'mlp.fc1': ('mlp.fc1', 'mlp.up_proj'),
    'mlp.fc2': ('mlp.fc2', 'mlp.down_proj'),
    'attn.proj': ('attention.output.dense', 'attention.o_proj'),
    'norm1': ('norm1', 'norm1'),
    'norm2': ('norm2', 'norm2'),
}


def _dino(tensors: Mapping[str, np.ndarray]) -> Tensors:
    third = 'pos_embed' not in tensors
    top = {
        'cls_token': 'embeddings.cls_token',
        'pos_embed': 'embeddings.position_embeddings',
        'mask_token': 'embeddings.mask_token',
        'register_tokens': 'embeddings.register_tokens',
        'storage_tokens': 'embeddings.register_tokens',
    }
    patches = 'embeddings.patch_embeddings' + ('' if third else '.projection')
    found: Tensors = {}
    for name, array in tensors.items():
        block = re.fullmatch(r'blocks\.(\d+)\.(.+?)(?:\.(weight|bias|gamma|bias_mask))', name)
        if name in top:
            found[top[name]] = array
        elif name.startswith('patch_embed.proj.'):
            found[f'{patches}.{name.rsplit(".", 1)[1]}'] = array
        elif name in ('norm.weight', 'norm.bias'):
            found[name if third else f'layer{name}'] = array
        elif name == 'rope_embed.periods' or (block and block[3] == 'bias_mask'):
            continue  # of constants
        elif block:
            start = f'{"" if third else "encoder."}layer.{block[1]}'
            found |= _dino_part(array, start, block[2], block[3], third)
        else:
            found[name] = array
    return found


def _dino_part(array: np.ndarray, start: str, part: str, kind: str, third: bool) -> Tensors:
    if part == 'attn.qkv':
        names = ('q_proj', 'k_proj', 'v_proj') if third else ('query', 'key', 'value')
        inside = 'attention' if third else 'attention.attention'
        pieces = np.split(array, 3)
        return {f'{start}.{inside}.{n}.{kind}': a for n, a in zip(names, pieces, strict=True)}
    if part in ('ls1', 'ls2'):
        return {f'{start}.layer_scale{part[2]}.lambda1': array}
    return {f'{start}.{_DINO[part][third] if part in _DINO else part}.{kind}': array}


_CLIP = {'ln_1': 'layer_norm1', 'ln_2': 'layer_norm2', 'attn.out_proj': 'self_attn.out_proj'}
_CLIP |= {'mlp.c_fc': 'mlp.fc1', 'mlp.c_proj': 'mlp.fc2'}


def _clip(tensors: Mapping[str, np.ndarray]) -> Tensors:
    top = {
        'visual.class_embedding': 'vision_model.embeddings.class_embedding',
        'visual.positional_embedding': 'vision_model.embeddings.position_embedding.weight',
        'visual.conv1.weight': 'vision_model.embeddings.patch_embedding.weight',
        'visual.proj': 'visual_projection.weight',
        'token_embedding.weight': 'text_model.embeddings.token_embedding.weight',
        'positional_embedding': 'text_model.embeddings.position_embedding.weight',
        'text_projection': 'text_projection.weight',
    }
    for kind in ('weight', 'bias'):
        top[f'visual.ln_pre.{kind}'] = f'vision_model.pre_layrnorm.{kind}'
        top[f'visual.ln_post.{kind}'] = f'vision_model.post_layernorm.{kind}'
        top[f'ln_final.{kind}'] = f'text_model.final_layer_norm.{kind}'
    found: Tensors = {}
    for name, array in tensors.items():
        block = re.fullmatch(r'(visual\.)?transformer\.resblocks\.(\d+)\.(.+)', name)
        if block:
            tower = 'vision' if block[1] else 'text'
            start = f'{tower}_model.encoder.layers.{block[2]}'
            if block[3].startswith('attn.in_proj_'):
                kind = block[3].removeprefix('attn.in_proj_')
                pieces = zip('qkv', np.split(array, 3), strict=True)
                found |= {f'{start}.self_attn.{k}_proj.{kind}': a for k, a in pieces}
            else:
                part, kind = block[3].rsplit('.', 1)
                found[f'{start}.{_CLIP.get(part, part)}.{kind}'] = array
        elif name in ('input_resolution', 'context_length', 'vocab_size'):
            continue
        elif name in ('visual.proj', 'text_projection'):
            found[top[name]] = array.T
        else:
            found[top.get(name, name)] = array
    return found


def _siglip(arrays: Mapping[str, np.ndarray]) -> Tensors:
    """Kernels are [in, out] there, heads have an axis of their own, layers may be stacked."""
    found: Tensors = {}
    for tower, model in (('img', 'vision_model'), ('txt', 'text_model')):
        of = {
            n.removeprefix(f'{tower}/'): a for n, a in arrays.items() if n.startswith(f'{tower}/')
        }
        encoder = 'Transformer' if tower == 'img' else 'Encoder_0'
        for name, array in _unstacked(of, encoder).items():
            for new, value in _siglip_one(name, np.asarray(array), model, encoder).items():
                found[new] = value
    head = 'vision_model.head.attention'
    for kind, end in (('weight', 'in_proj_weight'), ('bias', 'in_proj_bias')):
        names = [f'{head}.{k}.{kind}' for k in ('query', 'key', 'value')]
        if all(name in found for name in names):
            found[f'{head}.{end}'] = np.concatenate([found.pop(name) for name in names])
    return found


def _unstacked(arrays: Mapping[str, np.ndarray], encoder: str) -> Tensors:
    start, found = f'{encoder}/encoderblock/', dict[str, np.ndarray]()
    for name, array in arrays.items():
        if name.startswith(start):
            rest = name.removeprefix(start)
            found |= {f'{encoder}/encoderblock_{i}/{rest}': a for i, a in enumerate(array)}
        else:
            found[name] = array
    return found


_SIGLIP = {
    'LayerNorm_0': 'layer_norm1',
    'LayerNorm_1': 'layer_norm2',
    'MlpBlock_0/Dense_0': 'mlp.fc1',
    'MlpBlock_0/Dense_1': 'mlp.fc2',
    **{f'MultiHeadDotProductAttention_0/{k}': f'self_attn.{k[0]}_proj'
       for k in ('query', 'key', 'value')},
    'MultiHeadDotProductAttention_0/out': 'self_attn.out_proj',
}  # fmt: skip


def _siglip_one(name: str, array: np.ndarray, model: str, encoder: str) -> Tensors:
    part, _, kind = name.rpartition('/')
    block = re.fullmatch(rf'{encoder}/encoderblock_(\d+)/(.+)', part)
    if block and block[2] in _SIGLIP:
        return _flax(f'{model}.encoder.layers.{block[1]}.{_SIGLIP[block[2]]}', kind, array)
    if part == f'{encoder}/encoder_norm':
        last = 'post_layernorm' if model == 'vision_model' else 'final_layer_norm'
        return _flax(f'{model}.{last}', kind, array)
    if name == 'pos_embedding':
        return {f'{model}.embeddings.position_embedding.weight': array[0]}
    if name == 'embedding/kernel':
        return {f'{model}.embeddings.patch_embedding.weight': array.transpose(3, 2, 0, 1)}
    if name == 'embedding/bias':
        return {f'{model}.embeddings.patch_embedding.bias': array}
    if name == 'Embed_0/embedding':
        return {f'{model}.embeddings.token_embedding.weight': array}
    if part == 'head':
        return _flax(f'{model}.head', kind, array)
    if name == 'MAPHead_0/probe':
        return {f'{model}.head.probe': array}
    pool = {'LayerNorm_0': 'layernorm', 'MlpBlock_0/Dense_0': 'mlp.fc1',
            'MlpBlock_0/Dense_1': 'mlp.fc2',
            'MultiHeadDotProductAttention_0/out': 'attention.out_proj'}  # fmt: skip
    pool |= {f'MultiHeadDotProductAttention_0/{k}': f'attention.{k}'
             for k in ('query', 'key', 'value')}  # fmt: skip
    inside = part.removeprefix('MAPHead_0/')
    if part.startswith('MAPHead_0/') and inside in pool:
        return _flax(f'{model}.head.{pool[inside]}', kind, array)
    return {name: array}


def _flax(name: str, kind: str, array: np.ndarray) -> Tensors:
    """A layer norm's or a dense layer's array, heads joined, as PyTorch has it."""
    if kind == 'scale':
        return {f'{name}.weight': array}
    if kind == 'bias':
        return {f'{name}.bias': array.reshape(-1)}
    if array.ndim == 3:  # [D, heads, d] of queries, keys and values; [heads, d, D] going out
        rows = array.shape[0] * array.shape[1] if name.endswith('out_proj') else array.shape[0]
        array = array.reshape(rows, -1)
    return {f'{name}.weight': array.T}
