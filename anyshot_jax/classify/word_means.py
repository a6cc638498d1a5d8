"""Means of classes without images, predicted from their names and descriptions.

Ridge regression from vectors of words to class means (as methods/ridge.py), learnt from the
classes that have images and, where the encoder was trained on ImageNet, from that: the weights of
its last layer say where each of those 1000 classes lies, and their names are words. So a class can
be described when there is no image at all, if far less well.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from anyshot_jax.classify.nearest_mean import unit
from anyshot_jax.encoders import TextEncoder, load, texts_to_vectors
from anyshot_jax.encoders.describe import spoken, tfidf
from anyshot_jax.storage.cache import cached
from anyshot_jax.types import Array, InputError

# Chosen among 1 to 30 and 0.3 to 10 on random classes of Grocery Store held out as new, where a
# description adds nothing to a name.
OWN_WEIGHT, PENALTY = 10.0, 3.0
# What that penalty is times if the classes that have images say so: beyond the 95 % interval of the
# gain, and only of this many classes on.
TIMES, FEW = (0.1, 0.3, 3.0, 10.0), 12


class Known(NamedTuple):
    """Words and where their classes lie, as the encoder's training has it."""

    words: Array  # [K, A] of length 1
    directions: Array  # [K, D] of features, around 0


class Found(NamedTuple):
    """Means by words, all of length 1."""

    means: Array  # [U, D] of the classes without images
    left_out: Array  # [H, D] of those with images, each as if it had none
    penalty: float  # of the ridge, as the classes with images chose it


def class_words(names: Sequence[str], texts: Sequence[str], text_encoder: str) -> Array:
    """[C, A] float32 of length 1: the vector of a name, and where there is one of a description.

    Args:
      text_encoder: for `encoders.load`, or 'tfidf' (no weights needed; only the words count).

    Raises:
      InputError: the text encoder can't be had, or reads no texts.
    """
    said = [spoken(str(n)) for n in names]
    both = [f'{n}: {t.strip()}' if t.strip() else n for n, t in zip(said, texts, strict=True)]
    if text_encoder == 'tfidf':
        return tfidf(both)
    vectors = texts_to_vectors(_text(text_encoder), said + both)
    return unit(vectors[: len(said)] + vectors[len(said) :]).astype(np.float32)


def imagenet(head: Array | None, text_encoder: str) -> Known | None:
    """ImageNet's classes by the encoder's last layer [1000, D]; None without one, or for tf-idf."""
    if head is None or text_encoder == 'tfidf':
        return None
    names = (Path(__file__).parent / 'imagenet_classes.txt').read_text().splitlines()
    encoder = _text(text_encoder)
    find = lambda: {'x': texts_to_vectors(encoder, names)}
    words = cached('imagenet-words', [encoder.digest, names], find)['x']
    return Known(words, head - head.mean(0))


def _text(which: str) -> TextEncoder:
    encoder = load(which)
    text = encoder if isinstance(encoder, TextEncoder) else encoder.text
    if text is None:
        raise InputError(f'text_encoder={which!r} reads no texts: take minilm_l6 or clip_vit_b32')
    return text


def fit_means(words: Array, has_images: Array, means: Array, known: Known | None) -> Found:
    """The means of the classes that have no images.

    Args:
      words: [C, A] of all classes. has_images: [C] bool. means: [C, D] of those that have them.
      known: with directions as the space has them.
    Raises:
      InputError: nothing to learn from: no images, and nothing known.
    """
    have = np.flatnonzero(has_images)
    a = unit(words - words.mean(0)) if len(words) > 1 else words
    rows, targets, weight = [a[have]], [unit(means[have])], [np.full(len(have), OWN_WEIGHT)]
    if known is not None:
        rows.append(unit(known.words - known.words.mean(0)))
        targets.append(unit(known.directions))
        weight.append(np.ones(len(known.words)))
    x, y, w = np.concatenate(rows), np.concatenate(targets), np.concatenate(weight)
    if not len(x):
        raise InputError(
            'this encoder has no classifier to learn from: give images of at least one class'
        )
    ridge = lambda penalty: _ridge(x, y, w, a[~has_images], len(have), penalty)
    return _chosen([ridge(PENALTY)] + [ridge(PENALTY * t) for t in TIMES], y[: len(have)])


def _ridge(x: Array, y: Array, w: Array, asked: Array, own: int, penalty: float) -> Found:
    weighed = (x * w[:, None]).T
    solved = np.linalg.solve(weighed @ x + penalty * np.eye(x.shape[1]), weighed)
    slope = solved @ y
    # The closed form of leaving one row out.
    leverage = np.einsum('ia,ai->i', x, solved)[:own, None]
    left_out = (x[:own] @ slope - leverage * y[:own]) / (1 - leverage)
    return Found(unit(asked @ slope), unit(left_out), penalty)


def _chosen(tried: Sequence[Found], means: Array) -> Found:
    """The first, or the best one if it is better by more than the 95 % interval of the gain.

    A class's own mean should be more like what was predicted without it than others' means are:
    the share of those that are less.
    """
    if len(means) < FEW:
        return tried[0]

    def shares(found):
        sim = found.left_out @ means.T
        return (np.diagonal(sim)[:, None] > sim).sum(1) / (len(means) - 1)

    values = [shares(found) for found in tried]
    best = int(np.argmax([v.mean() for v in values]))
    gain = values[best] - values[0]
    half = 1.96 * gain.std(ddof=1) / len(gain) ** 0.5
    return tried[best] if gain.mean() > half else tried[0]
