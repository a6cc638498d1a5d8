"""Class names and descriptions as vectors: the attributes of zero-shot methods."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import logging

from anyshot_jax.encoders import TextEncoder, load, texts_to_vectors
from anyshot_jax.ops.colour import COLOURS
from anyshot_jax.types import Array, Data, InputError

# What English calls the colours of ops/colour.py. Pink is pale red; metals are grey.
COLOUR_WORDS = {
    'black': 'black blackish dark',
    'grey': 'grey gray greyish grayish silver silvery metal metallic steel',
    'white': 'white whitish bright',
    'red': 'red reddish rufous pink pinkish',
    'orange': 'orange',
    'yellow': 'yellow yellowish gold golden',
    'green': 'green greenish',
    'cyan': 'cyan turquoise',
    'blue': 'blue bluish',
    'purple': 'purple purplish violet',
    'brown': 'brown brownish earthy rusty',
}


def describe(data: Data, by: str, templates: Sequence[str]) -> Data:
    """Data whose extras hold attribute [C, A] float32, a vector of unit length for every class.

    Args:
      by: 'tfidf' (Salton and Buckley 1988: the words of all roles' texts, weighted by rarity, no
        weights needed), 'subwords' (half of it their parts, so that crack is like cracks and
        cracked), or an encoder of texts for `encoders.load` (minilm_l6, clip_vit_b32).
      templates: texts in which {name} stands for the class's name, and {text} for its name and
        description ('name: description', or the name alone where it has none). Their vectors are
        averaged (Radford et al. 2021, section 3.1.4).
    Raises:
      InputError: no template, one without a field, or an encoder that reads no texts.
    """
    if not templates or not all('{name}' in t or '{text}' in t for t in templates):
        raise InputError(
            f'config.describe.templates={tuple(templates)!r}: each needs {{name}} or {{text}}'
        )
    datasets = data.roles.values()
    names = [n for d in datasets for n in d.names]
    texts = [t for d in datasets for t in d.texts or ('',) * len(d.names)]
    filled = [
        template.replace('{name}', spoken(name)).replace('{text}', _said(name, text))
        for template in templates
        for name, text in zip(names, texts, strict=True)
    ]
    vectors = WORDS[by](filled) if by in WORDS else _encoded(by, filled)
    mean = vectors.reshape(len(templates), len(names), -1).mean(0)
    mean = mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
    ends = np.cumsum([len(d.names) for d in datasets])[:-1]
    parts = np.split(mean.astype(np.float32), ends)
    roles = {
        role: dataclasses.replace(d, extras={**d.extras, 'attribute': part})
        for (role, d), part in zip(data.roles.items(), parts, strict=True)
    }
    return dataclasses.replace(data, roles=roles)


def name_colours(data: Data) -> Data:
    """Data whose extras hold colours [C, 11] float32: 1 where the class's text says a colour.

    The order is that of `ops.colour.COLOURS`. Read are its name and description, as whole words of
    English, in upper or lower case. Where no class of any role names one, the log says so.
    """
    described = {}
    for role, d in data.roles.items():
        texts = d.texts or ('',) * len(d.names)
        rows = [colours_in(f'{n} {t}') for n, t in zip(d.names, texts, strict=True)]
        described[role] = dataclasses.replace(d, extras={**d.extras, 'colours': np.stack(rows)})
    if not any(d.extras['colours'].any() for d in described.values()):
        logging.warning('config.describe.colours: no class name or description says a colour')
    return dataclasses.replace(data, roles=described)


def colours_in(text: str) -> Array:
    """[11] float32, 1 for every colour that the text names."""
    words = set(re.findall(r'[^\W\d_]+', text.lower()))
    return np.array([not words.isdisjoint(COLOUR_WORDS[c].split()) for c in COLOURS], np.float32)


def _said(name: str, text: str) -> str:
    return f'{spoken(name)}: {text.strip()}' if text.strip() else spoken(name)


def spoken(name: str) -> str:
    """A class name as words: 'Golden-Delicious' and 'golden_delicious' are two words."""
    return ' '.join(name.replace('_', ' ').replace('-', ' ').replace('/', ' ').split())


def tfidf(texts: Sequence[str]) -> Array:
    """[N, words] float32 of unit length; English stop words are left out."""
    return _tfidf(texts, stop_words='english')


def subwords(texts: Sequence[str]) -> Array:
    """[N, words and parts] float32 of unit length, half `tfidf`, half the same of parts of words.

    Parts are three to five letters: Bojanowski et al., "Enriching word vectors with subword
    information", TACL 2017.
    """
    parts = _tfidf(texts, analyzer='char_wb', ngram_range=(3, 5))
    return np.concatenate([tfidf(texts), parts], 1) / np.float32(np.sqrt(2))


WORDS = {'tfidf': tfidf, 'subwords': subwords}  # of config.describe.by, besides encoders


def _tfidf(texts: Sequence[str], **how: Any) -> Array:
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError as e:
        raise InputError(
            "config.describe.by='tfidf' needs scikit-learn: pip install 'anyshot-jax[text]'"
        ) from e
    try:
        matrix = TfidfVectorizer(sublinear_tf=True, **how).fit_transform(texts)
    except ValueError as e:
        raise InputError(f'the class descriptions hold no words: {e}') from e
    return matrix.toarray().astype(np.float32)


def _encoded(by: str, texts: list[str]) -> Array:
    encoder = load(by)
    text = encoder if isinstance(encoder, TextEncoder) else encoder.text
    if text is None:
        raise InputError(
            f'config.describe.by={by!r} reads no texts (or its tokenizer.json is not beside its '
            'weights): take minilm_l6, clip_vit_b32, tfidf or subwords'
        )
    return texts_to_vectors(text, texts)
