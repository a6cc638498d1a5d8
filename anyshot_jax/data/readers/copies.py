"""Images that are the same, or nearly: by their bytes, and by what they look like when small.

Nearly alike are images that differ by a new compression, another size or a slight change of
brightness: 64 bits say where an image grows brighter from left to right (a difference hash), and of
those that agree in nearly all of them small greys must be alike, too.

Reference:
  Krawetz, "Kind of like that", 2013 (the difference hash).
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from PIL import Image

from anyshot_jax.types import Array

BITS_APART = 3  # of 64: then one of four parts of 16 bits is equal
ALIKE = 3.0  # mean difference of small greys, of 255
FLAT = 4.0  # their deviation: less is a plain surface, of which all are alike
BUCKET = 200  # images that share 16 bits: more say nothing


def digest(content: bytes) -> bytes:
    """16 bytes that stand for a file's content."""
    return hashlib.blake2b(content, digest_size=16).digest()


def small(x: Array) -> Array:
    """[8, 9] uint8: the image [H, W, 1 or 3] as it is compared."""
    image = Image.fromarray(np.asarray(x)[..., 0] if x.shape[-1] == 1 else np.asarray(x))
    return np.asarray(image.convert('L').resize((9, 8), Image.Resampling.BOX))


def nearly_alike(smalls: Array, part: Array) -> Iterator[tuple[int, int]]:
    """Pairs (i, j), i < j, of images in different parts that look alike, in order.

    Args:
      smalls: [N, 8, 9] uint8 of `small`. part: [N] what they may not share between each other.
    """
    if not len(smalls):
        return
    greys = smalls.astype(np.float32)
    shown = greys.reshape(len(greys), -1).std(1) >= FLAT
    bits = np.packbits(greys[:, :, 1:] > greys[:, :, :-1], axis=-1).reshape(len(greys), 8)
    pairs: set[tuple[int, int]] = set()
    for quarter in range(4):
        buckets: dict[bytes, list[int]] = defaultdict(list)
        for i in np.flatnonzero(shown).tolist():
            buckets[bits[i, 2 * quarter : 2 * quarter + 2].tobytes()].append(i)
        for rows in buckets.values():
            if len(rows) > BUCKET or len({int(part[i]) for i in rows}) < 2:
                continue
            for n, i in enumerate(rows[:-1]):
                others = np.array(rows[n + 1 :])
                others = others[part[others] != part[i]]
                apart = np.bitwise_count(bits[others] ^ bits[i]).sum(1)
                others = others[apart <= BITS_APART]
                like = np.abs(greys[others] - greys[i]).mean((1, 2)) <= ALIKE
                pairs |= {(i, int(j)) for j in others[like]}
    yield from sorted(pairs)
