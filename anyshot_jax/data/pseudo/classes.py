"""Classes of synthetic defects on images without any: what to pretrain a classifier of defects on.

config.data.pseudo.kind says what a class is. 'mixed': a shape and an appearance, with a look of its
own (`shapes.py`, `paint.py`). 'texture': one image of a texture, pasted into
Perlin noise. 'category': any texture of a category, pasted likewise. 'polygon': any of a category,
pasted into a regular polygon with a certain number of corners.

Item j of every class of a role is made on the same image, so that a set of one item a class
differs in nothing but the defects. Categories of textures that classes of 'val' use are not used by
'train', and neither are their pairs of shape and appearance.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from anyshot_jax.config import check_choices
from anyshot_jax.data.pseudo import foreground, paint, shapes
from anyshot_jax.data.pseudo.textures import Texture, find_textures, read_textures
from anyshot_jax.runtime.bars import bar
from anyshot_jax.types import Array, Dataset, InputError, from_arrays

FIELDS = {
    'classes': 0,  # of role train; 0: none are made, and the other fields are not looked at
    'val_classes': 10,  # of role val
    'per_class': 40,
    # Share of the normal images, near copies together, that val's are made on and train's are not;
    # 0: both are made on the same.
    'held_out': 0.0,
    'kind': 'mixed',  # mixed | texture | category | polygon
    'textures': '',  # a folder of <category>/<image>, such as DTD's; '': drawn ones
    'beta': 0.5,  # a pasted texture lets through up to this share of the image
    'foreground': 'none',  # none | grabcut | flood: how the object is found, defects lie on it
    'seed': 0,
}
KINDS = ('mixed', 'texture', 'category', 'polygon')
CORNERS = (3, 4, 5, 6)
SHOWN = 20  # images of a category that a class of 'category' or 'polygon' draws from
AT_ONCE = 8  # items made together


class Class(NamedTuple):
    """One class of synthetic defects."""

    name: str
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
    check_choices(fields, {'kind': KINDS}, 'config.data.pseudo')
    if not 0 <= fields.held_out < 1:
        raise InputError(f'config.data.pseudo.held_out = {fields.held_out}: need 0 <= held_out < 1')
    if not 0 <= fields.beta < 1:
        raise InputError(f'config.data.pseudo.beta = {fields.beta}: need 0 <= beta < 1')
    foreground.check(fields.foreground)


def make(good: Array, fields, max_pixels: int, group: Array | None = None) -> dict[str, Dataset]:
    """Roles train and val of synthetic defects.

    Args:
      good: [N, S, S, C] uint8, images without defects.
      fields: see FIELDS. max_pixels: a texture with more is refused.
      group: [N], equal for near copies, which are held out together; none: there are none.
    Returns:
      Datasets of uint8 [classes * per_class, S, S, C] with mask, where an item differs from its
      image, and group, that image's row in `good`.
    Raises:
      InputError: too few textures for that many classes, or a damaged one (named); too few groups
        of normal images to hold some out.
    """
    rows_of = sources_of(len(good), fields, group)
    classes = plan(fields, find_textures(fields.textures))
    found = {t for of_role in classes.values() for c in of_role for t in c.textures}
    used = sorted(found, key=lambda t: (t.category, t.name))
    textures = read_textures(used, good.shape[1], good.shape[3], max_pixels)
    if fields.kind == 'mixed' and (good == good[..., :1]).all():  # paint would stand out on grey
        textures = np.repeat(textures.mean(-1, keepdims=True).astype(np.uint8), good.shape[-1], -1)
    row_of = {t: row for row, t in enumerate(used)}
    key = jax.random.key(fields.seed)
    seen = np.unique(np.concatenate(list(rows_of.values())))
    objects = foreground.find(good[seen], fields.foreground)
    roles = {}
    for role, of_role in classes.items():
        if not of_role:
            continue
        rows = rows_of[role]
        sources, allowed = (jnp.asarray(a) for a in (good[rows], objects[seen.searchsorted(rows)]))
        x = np.empty((len(of_role), *sources.shape), np.uint8)
        mask = np.empty(x.shape[:-1], bool)
        for i, c in enumerate(bar(of_role, f'make defects for {role}')):
            of_class = jax.random.fold_in(jax.random.fold_in(key, role == 'train'), i)
            keys = jax.random.split(of_class, 3)
            own = sources  # without a texture, what is given instead isn't looked at
            if c.textures:
                which = jax.random.randint(keys[0], (len(rows),), 0, len(c.textures))
                own = jnp.asarray(textures[[row_of[c.textures[w]] for w in which]])
            look = jax.random.uniform(keys[2], (shapes.LOOK,))
            x[i], mask[i] = _items(keys[1], sources, own, allowed, fields.beta, look, c)
        roles[role] = from_arrays(
            x.reshape(-1, *x.shape[2:]),
            np.repeat(np.arange(len(of_role)), len(rows)),
            tuple(c.name for c in of_role),
            group=np.tile(rows, len(of_role)),
            mask=mask.reshape(-1, *mask.shape[2:]),
        )
    return roles


def sources_of(num: int, fields, group: Array | None = None) -> dict[str, Array]:
    """The normal images that train and val are made on: rows [per_class] of 0..num-1 each.

    Raises:
      InputError: with held_out, there are fewer than two groups of images.
    """
    if not fields.held_out:
        return dict.fromkeys(('train', 'val'), source_rows(num, fields.per_class, fields.seed))
    group = np.arange(num) if group is None else np.asarray(group)
    groups = np.random.default_rng(fields.seed).permutation(np.unique(group))
    if len(groups) < 2:
        raise InputError(
            f'config.data.pseudo.held_out = {fields.held_out}: all normal images are of one group '
            '(config.data.group), so none can be held out'
        )
    # As many groups as it takes to have that share of the images; one stays at least.
    images = np.cumsum([(group == g).sum() for g in groups])
    cut = min(int(np.searchsorted(images, fields.held_out * num)) + 1, len(groups) - 1)
    held = np.isin(group, groups[:cut])
    rows = {'train': np.flatnonzero(~held), 'val': np.flatnonzero(held)}
    return {
        role: own[source_rows(len(own), fields.per_class, fields.seed)]
        for role, own in rows.items()
    }


def source_rows(num: int, per_class: int, seed: int) -> Array:
    """[per_class] rows of 0..num-1, each as often as any other (or once more)."""
    rng = np.random.default_rng(seed)
    rounds = -(-per_class // num)
    return np.concatenate([rng.permutation(num) for _ in range(rounds)])[:per_class]


def plan(fields, textures: Sequence[Texture]) -> dict[str, list[Class]]:
    """The classes of train and of val.

    A fifth of the categories, and of the pairs of shape and appearance, is kept for val. More
    classes add to those that fewer would be, and val's don't depend on how many train has.

    Raises:
      InputError: textures are too few; says how many classes there can be.
    """
    rng = np.random.default_rng(fields.seed)
    by_category: dict[str, list[Texture]] = {}
    for texture in textures:
        by_category.setdefault(texture.category, []).append(texture)
    names = [str(name) for name in rng.permutation(sorted(by_category))]
    pairs = _pairs(rng)
    num = {'val': fields.val_classes, 'train': fields.classes}
    classes = {}
    for role, some, own in zip(num, _fifth(names), _fifth(pairs), strict=True):
        of_role = {name: by_category[name] for name in some}
        if fields.kind == 'mixed':
            classes[role] = _mixed(rng, own, of_role, num[role])
            continue
        made = _pasted(rng, fields.kind, of_role)
        if num[role] > len(made):
            field = 'classes' if role == 'train' else 'val_classes'
            raise InputError(
                f'config.data.pseudo.{field} = {num[role]}, but kind={fields.kind!r} and the '
                f'textures of {len(by_category)} categories make {len(made)} for {role}: lower '
                'it, or give a folder of more textures'
            )
        classes[role] = made[: num[role]]
    return classes


def _fifth(values: list) -> tuple[list, list]:
    """The first fifth of them, at least one of two, and the others."""
    cut = max(round(len(values) / 5), len(values) > 1)
    return values[:cut], values[cut:]


def _mixed(rng, pairs, by_category: dict[str, list[Texture]], num: int) -> list[Class]:
    pool = [t for of_category in by_category.values() for t in of_category]
    pool = [pool[i] for i in rng.permutation(len(pool))]
    classes = []
    for i in range(num):
        again, which = divmod(i, len(pairs))
        shape, appearance = pairs[which]
        own = (pool[i % len(pool)],) if appearance == 'texture' and pool else ()
        classes.append(Class(f'{shape} {appearance} {again + 1}', own, shape, appearance))
    return classes


def _pasted(rng, kind: str, by_category: dict[str, list[Texture]]) -> list[Class]:
    """All classes of a kind that pastes textures, in random order."""
    if kind == 'texture':
        made = [Class(t.name, (t,)) for some in by_category.values() for t in some]
    else:
        made = [
            Class(f'{name} {n}' if n else name, tuple(some[:SHOWN]), corners=n)
            for name, some in by_category.items()
            for n in (CORNERS if kind == 'polygon' else (0,))
        ]
    return [made[i] for i in rng.permutation(len(made))]


def _pairs(rng: np.random.Generator) -> list[tuple[str, str]]:
    """All pairs of shape and appearance; any n of them in a row differ as much as they can."""
    outlines = [str(s) for s in rng.permutation(list(shapes.SHAPES))]
    looks = [str(a) for a in rng.permutation(list(paint.APPEARANCES))]
    return [
        (shape, looks[(i + turn) % len(looks)])
        for turn in range(len(looks))
        for i, shape in enumerate(outlines)
    ]


@partial(jax.jit, static_argnames='shape')
def _covers(keys, look, allowed, shape):
    of_one = lambda item: shapes.cover(item[0], look, item[1], shape)
    return jax.lax.map(of_one, (keys, allowed), batch_size=AT_ONCE)


@partial(jax.jit, static_argnames='appearance')
def _paints(keys, look, images, textures, covered, appearance):
    of_one = lambda item: paint.paint(item[0], look, *item[1:], appearance)
    return jax.lax.map(of_one, (keys, images, textures, covered), batch_size=AT_ONCE)


@partial(jax.jit, static_argnames='corners')
def _pastes(keys, images, textures, allowed, beta, corners):
    of_one = lambda item: paint.pasted(*item, beta, corners)
    return jax.lax.map(of_one, (keys, images, textures, allowed), batch_size=AT_ONCE)


def _items(key, images, textures, allowed, beta, look, c):
    """The items [n, S, S, C] of class c and their masks, one of each image."""
    keys = jax.random.split(key, len(images))
    if not c.shape:
        return _pastes(keys, images, textures, allowed, beta, c.corners)
    keys = jax.vmap(jax.random.split)(keys)
    covered = _covers(keys[:, 0], look, allowed, c.shape)
    return _paints(keys[:, 1], look, images, textures, covered, c.appearance)
