"""Warnings about the normal images that a detector was fitted on."""

from typing import NamedTuple

import numpy as np

from anyshot_jax.detect.normal import Normal
from anyshot_jax.detect.threshold import Promise
from anyshot_jax.detect.views import View

FAR_OUT = 5.0  # robust deviations above the others from which on a normal image is a strange one
MANY = 0.2  # share of strange images from which on they are no exceptions
LARGE = 4  # times the pixels that the encoder sees, from which on small defects are lost
STRETCHED = 2  # ratio of shapes from which on squares make different things of them


class Strange(NamedTuple):
    """A normal image that the others speak against."""

    name: str
    score: float  # held out
    usual: float  # the largest score of images that aren't strange


def strange(known: Normal) -> list[Strange]:
    """Normal images far above the others' scores, the strangest first; [] of fewer than four."""
    score = known.held_out.score.astype(np.float64)
    if len(score) < 4:
        return []
    middle = np.median(score)
    spread = 1.4826 * np.median(np.abs(score - middle))
    out = score > middle + FAR_OUT * max(spread, 1e-3 * middle)
    if not out.any() or out.mean() > MANY:
        return []
    usual = float(score[~out].max())
    order = np.argsort(-score, kind='stable')
    name = lambda i: known.names[known.held_out.number[i]]
    return [Strange(name(i), float(score[i]), usual) for i in order if out[i]]


def notes(known: Normal, promise: Promise | None, view: View) -> list[str]:
    """One sentence each: few images, copies, mixed colours, details that are lost, strange ones."""
    said, num = [], len(known.names)
    if promise is None:
        few = 'one normal image says' if num == 1 else f'{num} near copies of a normal image say'
        said.append(
            f'{few} nothing of how normal images differ: there are scores and heat maps, but no '
            'threshold'
        )
    elif promise.loose:
        said.append(str(promise))
    copies = num - len(set(known.group))
    if copies and all(g.startswith('#') for g in known.group):
        said.append(f'{copies} of {num} normal images are copies of others')
    num_grey = int(known.grey.sum())
    if (known.grey >= 0).all() and 0 < num_grey < num:
        said.append(f'{num_grey} of {num} normal images are grey, the others in colour')
    largest = int(known.sizes.max())
    if not view.tile and largest >= LARGE * view.size:
        lost = round(8 * largest / view.size)
        said.append(
            f'images of up to {largest} pixels are seen at {view.size}: defects smaller than about '
            f'{lost} pixels are lost; tile=512, size=0 looks closer'
        )
    shape = known.sizes[:, 0] / known.sizes[:, 1]
    whole = not view.tile and view.crop != 'centre'
    if whole and shape.max() > STRETCHED * shape.min():
        said.append(
            f'normal images are {shape.min():.2g} to {shape.max():.2g} times as wide as high, and '
            'all are stretched to squares; size=256, tile=256 keeps their shapes'
        )
    for image in strange(known):
        said.append(
            f'{image.name} is unlike the other normal images (score {image.score:.3g}, theirs '
            f'{image.usual:.3g} at most): if it has a defect leave it out, it raises the threshold'
        )
    return said
