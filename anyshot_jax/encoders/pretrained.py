"""Pretrained encoders: where their weights are, and how images and texts become what they take.

    encoder = load('efficientnet_lite0')
    features = jax.jit(encoder.apply)(encoder.params, encoder.preprocess(images))

Weights come from an installed package, from ANYSHOT_DATA_DIR, or from the Hugging Face hub.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from anyshot_jax.encoders import (
    efficientnet_lite,
    minilm,
    resnet,
    text_tower,
    tokens,
    vit_weights,
    weights,
)
from anyshot_jax.encoders.authors_names import to_transformers
from anyshot_jax.encoders.catalogue import HUB, NAMES, VITS, find_weights, net_of, weights_file
from anyshot_jax.ops.colour import COLOURS, colour_shares
from anyshot_jax.ops.preprocess import Preprocessing, preprocess
from anyshot_jax.storage.folders import user_path
from anyshot_jax.types import ArgumentError, Array, InputError, nearest


class TextEncoder(NamedTuple):
    """Texts into vectors of unit length."""

    name: str
    apply: Callable  # (params, tokens [N, T] int32, mask [N, T] bool) -> [N, dim]
    params: Any
    preprocess: tokens.Tokenizer
    dim: int
    digest: str  # of the weights and the vocabulary: equal digests give equal vectors
    scale: float = 0.0  # what cosines with its images' features were multiplied by; 0: no partner


class ImageEncoder(NamedTuple):
    """Images into features."""

    name: str
    apply: Callable  # (params, what preprocess gives) -> [N, dim] float32
    params: Any
    preprocess: Callable  # [N, H, W, 1 or 3] uint8, H and W any -> what apply takes
    dim: int
    digest: str  # of the weights and the preprocessing: equal digests give equal features
    text: TextEncoder | None = None  # its partner in the same space (CLIP, SigLIP)
    parts: tuple[int, ...] = ()  # sizes of what makes up dim, the net's own features first
    # (params, what preprocess gives) -> the net's maps by name ('stride8', ...) [N, h, w, C]
    # float32, h and w the image's size over the stride, rounded up; {} of a net without any
    maps: Callable = lambda params, x: {}
    joins: tuple[str, ...] = ()  # names of the maps, which `load` takes as parts
    size: int = 224  # pixels that images' shorter side is brought to


IMAGENET = Preprocessing(224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
TFLITE = Preprocessing(224, mean=(127 / 255,) * 3, std=(128 / 255,) * 3)
CLIP = Preprocessing(
    224, mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711)
)
SIGLIP = Preprocessing(224, mean=(0.5,) * 3, std=(0.5,) * 3)


def load(
    which: str, *, dtype: str = 'float32', parts: Sequence[str] = (), size: int = 0
) -> ImageEncoder | TextEncoder:
    """A frozen encoder with its weights.

    Args:
      which: a name of `NAMES`; a weights file (or a folder with model.safetensors), whose net is
        told by its tensors; a repository of the hub 'hf:owner/name@revision' likewise; or
        NAME=either.
      dtype: what it computes in, float32 or bfloat16. Features are float32 either way.
      parts: what is joined to the features of an encoder of images, in this order: maps of a
        convolutional net by name ('stride8', ...; the means over space, then the standard
        deviations), and 'colours' (square roots of `colour_shares` of the whole image), which
        come last wherever they are named.
      size: pixels that images' shorter side is brought to; 0: the encoder's own. A vision
        transformer takes the largest multiple of its patch that is not above it.
    Raises:
      ArgumentError: no such dtype or part, or a size that the net can't take.
      InputError: no such encoder, weights that can't be had (says what would do), or a file of
        another net (names the first missing and the first unexpected tensor).
    """
    if dtype not in ('float32', 'bfloat16'):
        raise ArgumentError('dtype', f'={dtype!r}: need float32 or bfloat16')
    if not isinstance(which, str):
        raise InputError(f'encoder={which!r} is no text: take one of {", ".join(NAMES)}')
    name, _, given = which.rpartition('=')
    if not name and which in NAMES:
        name, path = which, find_weights(which)
    elif given.startswith('hf:'):
        path = find_weights(given)
    else:
        path = weights_file(user_path(given))
    found = weights.read_tensors(path)
    try:
        name = name or net_of(found, path)
        return build(name, found, path.parent, dtype=dtype, parts=parts, size=size)
    except ArgumentError:
        raise
    except InputError as e:
        raise InputError(f'{path}: {e}') from e


def build(
    name: str,
    found: Mapping[str, np.ndarray],
    folder: Path,
    *,
    dtype: str = 'float32',
    parts: Sequence[str] = (),
    size: int = 0,
) -> ImageEncoder | TextEncoder:
    """The encoder `name` with these tensors; `folder` holds the tokenizer of a text encoder."""
    parts = tuple(parts)
    if size and (name == 'minilm_l6' or (name not in VITS and size < 32)):
        raise ArgumentError('size', f'={size}: {name} cannot take images of size {size}; a '
                            'convolutional net takes 32 and more')  # fmt: skip
    if name == 'minilm_l6':
        if parts:
            raise ArgumentError('parts', f'={parts!r}: {name} reads texts, so leave it empty')
        net = minilm.MiniLM(dtype=dtype)
        params, tokenizer = minilm.convert(found, net), tokens.wordpiece_tokenizer(folder)
        return _text_encoder(name, net.apply, params, tokenizer, net.width, dtype)
    if name in VITS:
        return _vit(name, found, folder, dtype, parts, size)
    if name in efficientnet_lite.NETS:
        lite, params = efficientnet_lite.NETS[name], efficientnet_lite.convert(found, name)
        how = _sized(TFLITE, size or efficientnet_lite.SIZES[name])
        return _image_encoder(name, lite.apply, params, how, dtype, parts)
    if name in HUB:
        residual = getattr(resnet, name)()
        params = resnet.convert(found, residual)
        return _image_encoder(name, residual.apply, params, _sized(IMAGENET, size), dtype, parts)
    raise InputError(f'there is no encoder {name!r}{nearest(name, NAMES)}')


def _sized(how: Preprocessing, size: int) -> Preprocessing:
    return how._replace(size=size) if size else how


def _vit(name, found, folder: Path, dtype: str, parts, size: int) -> ImageEncoder:
    vit, found = VITS[name], to_transformers(found)
    patch = vit.sizes['patch']
    own = vit_weights.own_size(found, vit.family, patch) if vit.text else 0
    asked, size = size, vit_weights.check_size(size or own or 224, patch)
    if asked not in (0, size):
        logging.warning('%s takes multiples of %d pixels: images of %d instead of %d', name, patch,
                        size, asked)  # fmt: skip
    net = vit.net(size)
    params = vit_weights.convert(found, net, vit.family)
    how = _sized({'clip': CLIP, 'siglip': SIGLIP}.get(vit.family, IMAGENET), size)
    text = _partner(name, found, folder, dtype)
    return _image_encoder(name, net.apply, params, how, dtype, parts, text)


def _partner(name: str, found, folder: Path, dtype: str) -> TextEncoder | None:
    """The tower of texts, where it and its tokenizer are there."""
    tower, family = VITS[name].text, VITS[name].family
    files = ('tokenizer.json', 'vocab.json')[: 2 if family == 'clip' else 1]
    if tower is None or 'text_model.embeddings.token_embedding.weight' not in found:
        return None
    if not any((folder / f).is_file() for f in files):
        logging.warning('%s: no %s in %s, so its texts are not read', name, files[0], folder)
        return None
    tower = tower.clone(dtype=dtype)

    def apply(params, tokens, mask):
        del mask  # attention is causal and the end token is read, or all tokens count
        return tower.apply(params, tokens)

    params = text_tower.convert(found, tower)
    if family == 'clip':
        tokenizer = tokens.clip_tokenizer(folder, tower.context)
    else:
        plain = tower.vocabulary == 32000
        tokenizer = tokens.siglip_tokenizer(folder, tower.context, plain=plain)
    encoder = _text_encoder(name, apply, params, tokenizer, tower.features, dtype)
    return encoder._replace(scale=text_tower.scale_of(found))


def _image_encoder(name, apply, params, how, dtype, parts=(), text=None) -> ImageEncoder:
    """Wraps apply: (params, x) -> {'features': [N, D], and maps [N, H, W, C] by name}."""
    x = jax.ShapeDtypeStruct((1, how.size, how.size, 3), jnp.float32)
    channels = {k: v.shape[-1] for k, v in jax.eval_shape(apply, params, x).items()}
    dim = channels.pop('features')
    sizes = {k: 2 * c for k, c in channels.items()} | {'colours': len(COLOURS)}
    for i, part in enumerate(parts):
        if part not in sizes:
            hint = nearest(str(part), sizes)
            raise ArgumentError('parts', f': {name} has no {part!r}{hint}')
        if part in parts[:i]:
            raise ArgumentError('parts', f' names {part!r} twice')
    parts = tuple(sorted(parts, key=lambda part: part == 'colours'))  # methods find them at the end

    def features(params, x):
        x, shares = x if 'colours' in parts else (x, None)
        found = apply(params, x.astype(dtype))
        added = [jnp.sqrt(shares) if p == 'colours' else _moments(found[p]) for p in parts]
        return jnp.concatenate([found['features'].astype(jnp.float32), *added], -1)

    def maps(params, x):
        found = apply(params, (x[0] if 'colours' in parts else x).astype(dtype))
        return {k: v.astype(jnp.float32) for k, v in found.items() if k in channels}

    def ready(x):
        z = preprocess(x, how=how)
        return (z, colour_shares(x)) if 'colours' in parts else z

    all_sizes = (dim, *(sizes[p] for p in parts))
    return ImageEncoder(
        name=name,
        apply=features,
        params=params,
        preprocess=ready,
        dim=sum(all_sizes),
        # Without parts as it was before there were any: features in the cache stay valid.
        digest=digest(params, [name, how, dtype, parts] if parts else [name, how, dtype]),
        text=text,
        parts=all_sizes,
        maps=maps,
        joins=tuple(channels),
        size=how.size,
    )


def _moments(x: Array) -> jax.Array:
    """[N, H, W, C] -> [N, 2 C] float32: means over space, then (population) deviations."""
    x = x.astype(jnp.float32)
    return jnp.concatenate([x.mean((1, 2)), x.std((1, 2))], -1)


def _text_encoder(name, apply, params, tokenizer, dim, dtype) -> TextEncoder:
    def unit(params, tokens, mask):
        z = apply(params, tokens, mask).astype(jnp.float32)
        return z / jnp.maximum(jnp.linalg.norm(z, axis=-1, keepdims=True), 1e-12)

    sample = tokenizer.encode(['A sample of 12 words, with commas; and UPPER case, to tell.'])
    return TextEncoder(name, unit, params, tokenizer, dim, digest(params, [name, dtype, sample]))


def digest(arrays: Any, what: object) -> str:
    """32 hex digits of a tree of arrays, and of anything whose repr says all of it."""
    h = hashlib.blake2b(repr(what).encode(), digest_size=16)
    for path, leaf in jax.tree_util.tree_leaves_with_path(arrays):
        a = np.ascontiguousarray(leaf)
        h.update(f'{jax.tree_util.keystr(path)} {a.dtype} {a.shape}'.encode())
        h.update(a.reshape(-1).view(np.uint8).data)
    return h.hexdigest()


def texts_to_vectors(encoder: TextEncoder, texts: list[str]) -> Array:
    """[N, dim] float32 of unit length."""
    params = jax.device_put(encoder.params)
    apply = partial(jax.jit(encoder.apply), params)
    return tokens.embed_texts(apply, encoder.preprocess, texts)
