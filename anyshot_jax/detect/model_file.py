"""A fitted detector as one .safetensors file: arrays, and JSON in its header. Nothing is run.

safetensors' metadata {'anyshot_jax_detector': JSON}; tensors product<i>.<field> as `normal.Normal`
has them (folds one after the other), types.z, types.label and types.kernel.
"""

from pathlib import Path
from typing import Any

import numpy as np

from anyshot_jax.detect import memory, settings
from anyshot_jax.detect.defect_types import NOTHING, Types
from anyshot_jax.detect.memory import Fold
from anyshot_jax.detect.normal import HeldOut, Normal
from anyshot_jax.detect.scores import WORST
from anyshot_jax.storage import tensors
from anyshot_jax.storage.tensors import misfit
from anyshot_jax.types import Array

FORMAT = 1
KEY = 'anyshot_jax_detector'
FOLD = ('rows', 'image', 'cell')
HELD = ('number', 'score', 'first', 'num', 'low', 'dist', 'worst')
VECTORS = ('peak', 'head', 'whole')


def write(path: Path, detector: Any) -> None:
    """The file, whole or not at all.

    Raises:
      InputError: another suffix, or it can't be written.
    """
    tensors.check_suffix(path)
    arrays: dict[str, Array] = {}
    products = []
    for i, (name, known) in enumerate(detector.normal_.items()):
        products.append(
            {
                'name': name,
                'names': known.names,
                'group': known.group,
                'far': known.far,
                'grey': known.num_grey,
                'folds': [len(f.rows) for f in known.folds],
                'radius': [f.radius for f in known.folds],
            }
        )
        own = {k: np.concatenate([getattr(f, k) for f in known.folds]) for k in FOLD}
        own |= {k: getattr(known.held_out, k) for k in HELD}
        own |= dict(zip(VECTORS, known.mean, strict=False))
        own |= {'fold_of': known.fold_of, 'sizes': known.sizes}
        arrays |= {f'product{i}.{k}': v for k, v in own.items()}
    types = detector.types_of_
    arrays |= {'types.z': types.z, 'types.label': types.label}
    if types.kernel is not None:
        arrays['types.kernel'] = types.kernel
    said = {
        'format': FORMAT,
        'params': {**detector.get_params(), 'layers': list(detector.layers)},
        'encoder': detector._eye().patcher.digest,
        'products': products,
        'types': {
            'names': types.names,
            'temperature': types.temperature,
            'threshold': types.threshold if np.isfinite(types.threshold) else None,
            'false_alarm': types.false_alarm,
        },
    }
    tensors.write(path, KEY, said, arrays)


def read(path: Path, cls: type) -> Any:
    """The detector, of class `cls`.

    Raises:
      InputError: no file, damaged, another program's, or parts that don't fit; names the file.
    """
    restore = lambda said, arrays: _restored(path, cls, said, arrays)
    return tensors.read(path, KEY, 'detector', (FORMAT,), restore)


def is_detector(path: Path) -> bool:
    """True if the header of a .safetensors file says that it is one of these."""
    return tensors.has(path, KEY)


def _restored(path: Path, cls: type, said: dict, arrays: dict[str, Array]) -> Any:
    params = said['params']
    found = cls(**{**params, 'layers': tuple(str(layer) for layer in params['layers'])})
    found.range = None if found.range is None else tuple(float(v) for v in found.range)
    settings.check(found)
    found.encoder_digest_ = str(said['encoder'])
    known: dict[str, Normal] = {}
    for i, product in enumerate(said['products']):
        own = {k.split('.', 1)[1]: v for k, v in arrays.items() if k.startswith(f'product{i}.')}
        known[str(product['name'])] = _product(path, own, product, found.seed)
    if not known or len(known) != len(said['products']):
        raise misfit(path, 'products')
    known = found._knowing(known)._replace(types=_types(path, said['types'], arrays, known))
    return found._take(known)


def _product(path: Path, own: dict[str, Array], said: dict, seed: int) -> Normal:
    rows, num = own['rows'], len(said['names'])
    dim, lengths = rows.shape[1], [int(n) for n in said['folds']]
    ends = np.cumsum(lengths)
    held = len(own['number'])
    shapes = {
        'rows': (sum(lengths), dim), 'image': (len(rows),), 'cell': (len(rows), 2),
        'fold_of': (num,), 'sizes': (num, 2), 'dist': (held, WORST), 'worst': (held, WORST, dim),
        **dict.fromkeys(('number', 'score', 'first', 'num', 'low'), (held,)), 'peak': (dim,),
    }  # fmt: skip
    whole = ('image', 'cell', 'fold_of', 'sizes', 'number', 'num')
    for name, x in own.items():
        kind = np.int32 if name in whole else np.float32
        if x.dtype != kind or x.shape != shapes.get(name, x.shape) or not np.isfinite(x).all():
            raise misfit(path, name)
    in_range = [('image', num), ('fold_of', len(lengths)), ('number', num)]
    for name, end in in_range:
        if len(own[name]) and not 0 <= own[name].min() <= own[name].max() < end:
            raise misfit(path, name)
    vectors = tuple(own[k] for k in VECTORS if k in own)
    far = tuple(float(f) for f in said['far'])
    radius = [float(r) for r in said['radius']]
    if (
        len(said['group']) != num or len(radius) != len(lengths) or min(lengths, default=0) < 0
        or len(vectors) not in (0, len(VECTORS)) or len(far) != len(vectors)
        or not np.isfinite(far).all() or (own['num'] < 1).any() or (own['sizes'] < 1).any()
        or not len(rows) or (held and own['dist'][:, 0].min() < 0)
    ):  # fmt: skip
        raise misfit(path, 'a product')
    small = rows @ memory.projection(dim, seed)
    folds = [
        Fold(
            rows[end - n : end],
            small[end - n : end],
            own['image'][end - n : end],
            own['cell'][end - n : end],
            r,
        )
        for n, end, r in zip(lengths, ends, radius, strict=True)
    ]
    return Normal(
        tuple(folds),
        own['fold_of'],
        tuple(str(g) for g in said['group']),
        tuple(str(n) for n in said['names']),
        own['sizes'],
        HeldOut(*(own[k] for k in HELD)),
        vectors,
        far,
        int(said['grey']),
    )


def _types(path: Path, said: dict, arrays: dict, products: dict[str, Normal]) -> Types:
    names, z, label = [str(n) for n in said['names']], arrays['types.z'], arrays['types.label']
    kernel = arrays.get('types.kernel')
    if not names and kernel is None:
        return NOTHING
    (dims,) = {sum(len(v) for v in known.mean) for known in products.values()}
    if kernel is not None:
        if kernel.dtype != np.float32 or len(kernel) != dims or not np.isfinite(kernel).all():
            raise misfit(path, 'types.kernel')
        dims += kernel.shape[1]
    if not names:
        return NOTHING._replace(kernel=kernel)
    if (
        z.dtype != np.float32 or z.shape != (len(label), dims) or not np.isfinite(z).all()
        or label.dtype != np.int32 or set(label.tolist()) != set(range(len(names)))
        or len(set(names)) != len(names)
    ):  # fmt: skip
        raise misfit(path, 'types')
    limit, rate = said['threshold'], said['false_alarm']
    temperature = float(said['temperature'])
    if not 0 < temperature < np.inf:
        raise misfit(path, 'types')
    return Types(
        tuple(names), z, label, temperature, -np.inf if limit is None else float(limit),
        None if rate is None else float(rate), kernel,
    )  # fmt: skip
