"""A fitted detector as one .safetensors file: arrays, and JSON in its header. Nothing is run.

safetensors' metadata {'anyshot_jax_detector': JSON}; tensors product<i>.<field> as `normal.Normal`
has them (folds one after the other), net.*, types.z, types.label and types.kernel.
"""

from pathlib import Path
from typing import Any

import numpy as np

from anyshot_jax.detect import defect_types, memory, settings
from anyshot_jax.detect.defect_types import NOTHING, Types
from anyshot_jax.detect.inputs import MAX_PIXELS
from anyshot_jax.detect.memory import Fold
from anyshot_jax.detect.normal import HeldOut, Normal
from anyshot_jax.detect.scores import WORST
from anyshot_jax.detect.seeing import DefectNet
from anyshot_jax.storage import tensors
from anyshot_jax.storage.tensors import misfit
from anyshot_jax.types import Array, InputError, is_text

FORMAT = 3
READ = (1, 2, 3)  # 1 had no nets, 2 the number of grey images alone
KEY = 'anyshot_jax_detector'
FOLD = ('rows', 'image', 'cell')
HELD = ('number', 'score', 'first', 'num', 'low', 'dist', 'more', 'worst')
VECTORS = ('peak', 'head', 'whole')
FARTHEST = 1e15  # its square, and sums of many, are float32


def write(path: Path, detector: Any) -> None:
    """The file, whole or not at all.

    Raises:
      InputError: another suffix, names of products or types that are no text, or it can't be
        written.
    """
    tensors.check_suffix(path)
    names = (*detector.normal_, *detector.types_of_.names)
    if bad := [name for name in names if not is_text(name)]:
        raise InputError(f'the name {bad[0]!r} cannot be kept: it is no text of Unicode')
    arrays: dict[str, Array] = {}
    products = []
    for i, (name, known) in enumerate(detector.normal_.items()):
        products.append(
            {
                'name': name,
                'names': [tensors.shown(name) for name in known.names],
                'group': [tensors.shown(name) for name in known.group],
                'far': known.far,
                'per': known.per,
                'folds': [len(f.rows) for f in known.folds],
                'radius': [f.radius for f in known.folds],
            }
        )
        own = {k: np.concatenate([getattr(f, k) for f in known.folds]) for k in FOLD}
        own |= {k: getattr(known.held_out, k) for k in HELD}
        own |= dict(zip(VECTORS, known.mean, strict=False))
        own |= {'fold_of': known.fold_of, 'sizes': known.sizes, 'grey': known.grey}
        arrays |= {f'product{i}.{k}': v for k, v in own.items()}
    arrays |= _net_arrays(detector.net_)
    types = detector.types_of_
    arrays |= {'types.z': types.z, 'types.label': types.label}
    if types.kernel is not None:
        arrays['types.kernel'] = types.kernel
    said = {
        'format': FORMAT,
        'params': {**detector.get_params(), 'layers': list(detector.layers)},
        'encoder': detector._eye().patcher.digest,
        'net': _net_said(detector.net_),
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
    return tensors.read(path, KEY, 'detector', READ, restore)


def is_detector(path: Path) -> bool:
    """True if the header of a .safetensors file says that it is one of these."""
    return tensors.has(path, KEY)


def _restored(path: Path, cls: type, said: dict, arrays: dict[str, Array]) -> Any:
    params = said['params']
    if wrong := [k for k, v in params.items() if not _fits(v, cls().get_params().get(k))]:
        raise misfit(path, f'params.{wrong[0]}')
    if large := [k for k, x in arrays.items() if x.dtype.kind == 'f' and (abs(x) > FARTHEST).any()]:
        raise misfit(path, large[0])
    found = cls(**{**params, 'layers': tuple(str(layer) for layer in params['layers'])})
    found.range = None if found.range is None else tuple(float(v) for v in found.range)
    settings.check(found)
    found.max_pixels = min(found.max_pixels, MAX_PIXELS)  # a limit is the reader's
    found.encoder_digest_ = str(said['encoder'])
    found.net_ = _net(path, said.get('net'), arrays)
    if bool(found.learnt) != (found.net_ is not None):
        raise misfit(path, 'learnt')
    known: dict[str, Normal] = {}
    for i, product in enumerate(said['products']):
        own = {k.split('.', 1)[1]: v for k, v in arrays.items() if k.startswith(f'product{i}.')}
        known[str(product['name'])] = _product(path, own, product, found.seed)
    if not known or len(known) != len(said['products']):
        raise misfit(path, 'products')
    known = found._knowing(known)._replace(
        types=_types(path, said['types'], arrays, known, said['format'])
    )
    return found._take(known)


def _fits(value: Any, usual: Any) -> bool:
    """True for a parameter of the kind that the usual one is; lists are looked at elsewhere."""
    if isinstance(usual, str):
        return is_text(value)
    if isinstance(usual, float):
        return type(value) in (int, float)
    return type(value) is type(usual) if isinstance(usual, int) else True  # True is no number


def _product(path: Path, own: dict[str, Array], said: dict, seed: int) -> Normal:
    rows, num = own['rows'], len(said['names'])
    dim, lengths = rows.shape[1], [int(n) for n in said['folds']]
    ends = np.cumsum(lengths)
    held = len(own['number'])
    own = {'more': np.zeros((held, WORST), np.float32), **own}
    if 'grey' not in own:
        own['grey'] = np.full(num, {0: 0, num: 1}.get(said['grey'], -1), np.int32)
    per = float(said.get('per', 1))
    shapes = {
        'rows': (sum(lengths), dim), 'image': (len(rows),), 'cell': (len(rows), 2),
        'fold_of': (num,), 'grey': (num,), 'sizes': (num, 2), 'worst': (held, WORST, dim),
        **dict.fromkeys(('dist', 'more'), (held, WORST)),
        **dict.fromkeys(('number', 'score', 'first', 'num', 'low'), (held,)), 'peak': (dim,),
    }  # fmt: skip
    whole = ('image', 'cell', 'fold_of', 'grey', 'sizes', 'number', 'num')
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
    texts = (said['name'], *said['names'], *said['group'])
    if (
        not all(map(is_text, texts)) or len(said['group']) != num or len(radius) != len(lengths)
        or not all(0 <= r < np.inf for r in radius) or min(lengths, default=0) < 0
        or len(vectors) not in (0, len(VECTORS)) or len(far) != len(vectors)
        or not np.isfinite(far).all() or (own['num'] < 1).any() or (own['sizes'] < 1).any()
        or not len(rows) or (own['cell'] < 0).any() or not 0 < per < np.inf
        or not np.isin(own['grey'], (-1, 0, 1)).all()
        or (held and own['dist'][:, 0].min() < 0)
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
        own['grey'],
        per,
    )


def _net_arrays(net: DefectNet | None) -> dict[str, Array]:
    if net is None:
        return {}
    arrays = {'net.mean': net.mean, 'net.deviation': net.deviation}
    for i, (kernel, bias) in enumerate(net.layers):
        arrays |= {f'net.kernel{i}': kernel, f'net.bias{i}': bias}
    return {k: np.asarray(v, np.float32) for k, v in arrays.items()}


def _net_said(net: DefectNet | None) -> dict[str, Any] | None:
    if net is None:
        return None
    return {'layers': len(net.layers), 'far': net.far, 'usual': net.usual, 'spread': net.spread}


def _net(path: Path, said: dict | None, arrays: dict[str, Array]) -> DefectNet | None:
    if said is None:
        return None
    count, own = int(said['layers']), {k: v for k, v in arrays.items() if k.startswith('net.')}
    if not all(v.dtype == np.float32 and np.isfinite(v).all() for v in own.values()):
        raise misfit(path, 'net')
    layers = tuple((own[f'net.kernel{i}'], own[f'net.bias{i}']) for i in range(count))
    sizes = [own['net.mean'].size, *(k.shape[-1] for k, _ in layers)]
    numbers = [float(said[k]) for k in ('far', 'usual', 'spread')]
    fits = all(
        k.shape == (a, b) and bias.shape == (1, b)
        for (k, bias), a, b in zip(layers, sizes, sizes[1:], strict=False)
    )
    mean, deviation = own['net.mean'], own['net.deviation']
    if (
        not fits or not layers or sizes[-1] != 1 or mean.shape != deviation.shape
        or not np.isfinite(numbers).all() or min(numbers[0], numbers[2]) <= 0
        or not (deviation > 0).all()
    ):  # fmt: skip
        raise misfit(path, 'net')
    return DefectNet(layers, mean, deviation, *numbers)


def _types(
    path: Path, said: dict, arrays: dict, products: dict[str, Normal], version: int
) -> Types:
    names, z, label = [str(n) for n in said['names']], arrays['types.z'], arrays['types.label']
    kernel = arrays.get('types.kernel')
    if not names and kernel is None:
        return NOTHING
    # Not of a product of which one image is known.
    (dims,) = {sum(map(len, known.mean)) for known in products.values() if known.mean}
    if kernel is not None:
        if kernel.dtype != np.float32 or len(kernel) != dims or not np.isfinite(kernel).all():
            raise misfit(path, 'types.kernel')
        dims += kernel.shape[1]
    if not names:
        return NOTHING._replace(kernel=kernel)
    if (
        z.dtype != np.float32 or z.shape != (len(label), dims) or not np.isfinite(z).all()
        or label.dtype != np.int32 or set(label.tolist()) != set(range(len(names)))
        or len(set(names)) != len(names) or not all(map(is_text, said['names']))
    ):  # fmt: skip
        raise misfit(path, 'types')
    if kernel is not None and version < 3:  # what was learnt counted as much as the rest
        z = defect_types.joined(*np.split(z, [len(kernel)], axis=1))
    limit, rate = said['threshold'], said['false_alarm']
    temperature = float(said['temperature'])
    told = (limit is None or abs(limit) < np.inf) and (rate is None or 0 <= rate <= 1)
    if not told or not 0 < temperature < np.inf:
        raise misfit(path, 'types')
    return Types(
        tuple(names), z, label, temperature, -np.inf if limit is None else float(limit),
        None if rate is None else float(rate), kernel,
    )  # fmt: skip
