"""Classes of made-up defects on pictures without any: what to pretrain a classifier of defects on.

config.data.pseudo.kind says what a class is. 'mixed': a shape and an appearance with a look of its
own (`anyshot_jax/pseudo_defects.py`). 'texture': one picture of a texture, pasted into Perlin
noise. 'category': the same of any texture of a category. 'polygon': a category of textures and a
number of corners, pasted into a regular polygon.

Item j of every class is made on the same picture, so that a set of one item a class differs in
nothing but the defects. Categories of textures that classes of 'val' use are not used by 'train',
and neither are their pairs of shape and appearance.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from anyshot_jax import pseudo_defects
from anyshot_jax.data.textures import Texture, find_textures, read_textures
from anyshot_jax.types import Array, Data, InputError, from_arrays

FIELDS = {
    'classes': 0,  # of role train; 0: none are made, and the other fields are not looked at
    'val_classes': 10,  # of role val
    'per_class': 40,
    'kind': 'mixed',  # mixed | texture | category | polygon
    'textures': '',  # a folder of <category>/<picture>, such as DTD's; '': drawn ones
    'beta': 0.5,  # a pasted texture lets through up to this share of the picture
    'seed': 0,
}
KINDS = ('mixed', 'texture', 'category', 'polygon')
CORNERS = (3, 4, 5, 6)
SHOWN = 20  # pictures of a category that a class of 'category' or 'polygon' draws from
AT_ONCE = 8  # items made together


class Class(NamedTuple):
    """One class of made-up defects."""

    name: str
    role: str
    textures: tuple[Texture, ...]  # an item has one of them
    shape: str = ''  # of 'mixed'
    appearance: str = ''
    corners: int = 0  # of 'polygon'


def check(fields) -> None:
    """Refuses (InputError) values that no classes can be made with; names the field."""
    if not fields.classes:
        return
    for name, least in (('classes', 0), ('val_classes', 0), ('per_class', 1), ('seed', 0)):
        if fields[name] < least:
            raise InputError(f'config.data.pseudo.{name} = {fields[name]}: need {least} or more')
    if fields.kind not in KINDS:
        raise InputError(
            f'config.data.pseudo.kind = {fields.kind!r}: need one of {", ".join(KINDS)}'
        )
    if not 0 <= fields.beta < 1:
        raise InputError(f'config.data.pseudo.beta = {fields.beta}: need 0 <= beta < 1')


def make(good: Array, fields, max_pixels: int) -> Data:
    """Roles train and val of made-up defects.

    Args:
      good: [N, S, S, C] uint8, pictures without defects.
      fields: see FIELDS. max_pixels: a texture with more is refused.
    Returns:
      Datasets of uint8 [classes * per_class, S, S, C] with mask, where an item differs from its
      picture, and group, that picture's row in `good`.
    Raises:
      InputError: too few textures for that many classes, or a damaged one; names it.
    """
    classes = plan(fields, find_textures(fields.textures))
    used = sorted({t for c in classes for t in c.textures}, key=lambda t: (t.category, t.name))
    textures = read_textures(used, good.shape[1], good.shape[3], max_pixels)
    row_of = {t: row for row, t in enumerate(used)}
    rows = source_rows(len(good), fields.per_class, fields.seed)
    sources, key = jnp.asarray(good[rows]), jax.random.key(fields.seed)
    data = {}
    for role in ('train', 'val'):
        of_role = [c for c in classes if c.role == role]
        if not of_role:
            continue
        x = np.empty((len(of_role), *sources.shape), np.uint8)
        mask = np.empty(x.shape[:-1], bool)
        for i, c in enumerate(tqdm(of_role, f'make {role} defects', disable=None)):
            keys = jax.random.split(jax.random.fold_in(key, classes.index(c)), 3)
            own = sources  # without a texture, what is given instead isn't looked at
            if c.textures:
                which = jax.random.randint(keys[0], (len(rows),), 0, len(c.textures))
                own = jnp.asarray(textures[[row_of[c.textures[w]] for w in which]])
            look = jax.random.uniform(keys[2], (pseudo_defects.LOOK,))
            x[i], mask[i] = _items(keys[1], sources, own, fields.beta, look, c)
        data[role] = from_arrays(
            x.reshape(-1, *x.shape[2:]),
            np.repeat(np.arange(len(of_role)), len(rows)),
            tuple(c.name for c in of_role),
            group=np.tile(rows, len(of_role)),
            mask=mask.reshape(-1, *mask.shape[2:]),
        )
    return data


def source_rows(num: int, per_class: int, seed: int) -> Array:
    """[per_class] rows of 0..num-1, each as often as any other (or once more)."""
    rng = np.random.default_rng(seed)
    rounds = -(-per_class // num)
    return np.concatenate([rng.permutation(num) for _ in range(rounds)])[:per_class]


def plan(fields, textures: Sequence[Texture]) -> list[Class]:
    """The classes, train's and then val's.

    Raises:
      InputError: textures are too few; says how many classes there can be.
    """
    rng = np.random.default_rng(fields.seed)
    by_category: dict[str, list[Texture]] = {}
    for texture in textures:
        by_category.setdefault(texture.category, []).append(texture)
    num = {'train': fields.classes, 'val': fields.val_classes}
    share = fields.val_classes / (fields.classes + fields.val_classes)
    names = [str(name) for name in rng.permutation(sorted(by_category))]
    cut = round(share * len(names))
    cut = min(max(cut, 1), len(names) - 1) if share and len(names) > 1 else cut
    categories = {'train': names[cut:], 'val': names[:cut]}
    if fields.kind == 'mixed':
        combinations = _combinations(rng)
        cut = min(max(round(share * len(combinations)), bool(share)), len(combinations) - 1)
        kinds = {'train': combinations[cut:], 'val': combinations[:cut]}
    classes = []
    for role, wanted in num.items():
        pool = [t for c in categories[role] for t in by_category[c]]
        pool = [pool[i] for i in rng.permutation(len(pool))]
        if fields.kind == 'mixed':
            for i in range(wanted):
                shape, appearance = kinds[role][i % len(kinds[role])]
                own = (pool[i % len(pool)],) if appearance == 'texture' and pool else ()
                name = f'{shape} {appearance} {i // len(kinds[role]) + 1}'
                classes.append(Class(name, role, own, shape, appearance))
            continue
        if fields.kind == 'texture':
            made = [Class(t.name, role, (t,)) for t in pool]
        else:
            some = {c: tuple(t for t in pool if t.category == c)[:SHOWN] for c in categories[role]}
            corners = CORNERS if fields.kind == 'polygon' else (0,)
            made = [
                Class(f'{c} {n}' if n else c, role, some[c], corners=n)
                for n in corners for c in categories[role]
            ]  # fmt: skip
        if wanted > len(made):
            field = 'classes' if role == 'train' else 'val_classes'
            raise InputError(
                f'config.data.pseudo.{field} = {wanted}, but kind={fields.kind!r} and '
                f'{len(by_category)} categories of textures make {len(made)} for {role}: lower it, '
                'or give a folder of more textures'
            )
        classes += made[:wanted]
    return classes


def _combinations(rng: np.random.Generator) -> list[tuple[str, str]]:
    """All pairs of shape and appearance; any n of them in a row differ as much as they can."""
    shapes = [str(s) for s in rng.permutation(list(pseudo_defects.SHAPES))]
    looks = [str(a) for a in rng.permutation(list(pseudo_defects.APPEARANCES))]
    return [
        (shape, looks[(i + turn) % len(looks)])
        for turn in range(len(looks))
        for i, shape in enumerate(shapes)
    ]


@partial(jax.jit, static_argnames='shape')
def _covers(keys, look, allowed, shape):
    of_one = lambda item: pseudo_defects.cover(item[0], look, item[1], shape)
    return jax.lax.map(of_one, (keys, allowed), batch_size=AT_ONCE)


@partial(jax.jit, static_argnames='appearance')
def _paints(keys, look, pictures, textures, covered, appearance):
    of_one = lambda item: pseudo_defects.paint(item[0], look, *item[1:], appearance)
    return jax.lax.map(of_one, (keys, pictures, textures, covered), batch_size=AT_ONCE)


@partial(jax.jit, static_argnames='corners')
def _pastes(keys, pictures, textures, allowed, beta, corners):
    of_one = lambda item: pseudo_defects.pasted(*item, beta, corners)
    return jax.lax.map(of_one, (keys, pictures, textures, allowed), batch_size=AT_ONCE)


def _items(key, pictures, textures, beta, look, c):
    shape, appearance, corners = c.shape, c.appearance, c.corners
    num, size = pictures.shape[:2]
    allowed = jnp.ones((num, size, size), bool)
    keys = jax.random.split(key, num)
    if not shape:
        return _pastes(keys, pictures, textures, allowed, beta, corners)
    keys = jax.vmap(jax.random.split)(keys)
    covered = _covers(keys[:, 0], look, allowed, shape)
    return _paints(keys[:, 1], look, pictures, textures, covered, appearance)
