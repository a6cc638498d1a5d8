"""A fitted detector as one .safetensors file: arrays, and JSON in its header. Nothing is run.

safetensors' metadata {'anyshot_jax_detector': JSON}; tensors product<i>.<field> as `normal.Normal`
has them (folds one after the other), types.z and types.label.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from anyshot_jax.detect import memory, settings
from anyshot_jax.detect.defect_types import NOTHING, Types
from anyshot_jax.detect.inputs import MAX_PIXELS
from anyshot_jax.detect.memory import Fold
from anyshot_jax.detect.normal import HeldOut, Normal
from anyshot_jax.detect.scores import WORST
from anyshot_jax.storage.files import write_bytes
from anyshot_jax.types import Array, InputError, is_text

FORMAT = 1
KEY = 'anyshot_jax_detector'
MAX_BYTES = 8 << 30
FOLD = ('rows', 'image', 'cell')
HELD = ('number', 'score', 'first', 'num', 'low', 'dist', 'worst')
VECTORS = ('peak', 'head', 'whole')
FARTHEST = 1e15  # its square, and sums of many, are float32


def write(path: Path, detector: Any) -> None:
    """The file, whole or not at all.

    Raises:
      InputError: another suffix, or it can't be written.
    """
    from safetensors.numpy import save

    if path.suffix != '.safetensors':
        raise InputError(f'{path}: a model is a .safetensors file')
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
    header = {KEY: json.dumps(said, allow_nan=False)}
    write_bytes(path, save({k: np.array(v, order='C') for k, v in arrays.items()}, header))


def read(path: Path, cls: type) -> Any:
    """The detector, of class `cls`.

    Raises:
      InputError: no file, damaged, another program's, or parts that don't fit; names the file.
    """
    if not path.is_file():
        raise InputError(f'no model at {path}')
    if path.stat().st_size > MAX_BYTES:
        raise InputError(f'{path} is larger than any model that is read here')
    try:
        return _restored(path, cls)
    except InputError:
        raise
    except Exception as e:  # whatever hostile bytes lead to, the file is the reason
        raise InputError(f'{path} is damaged, or no model: {type(e).__name__}: {e}') from e


def is_detector(path: Path) -> bool:
    """True if the header of a .safetensors file says that it is one of these."""
    from safetensors import safe_open

    try:
        with safe_open(str(path), framework='np') as f:
            return KEY in (f.metadata() or {})
    except Exception:  # of whatever is no such file
        return False


def _restored(path: Path, cls: type) -> Any:
    from safetensors import safe_open

    with safe_open(str(path), framework='np') as f:
        said = json.loads((f.metadata() or {}).get(KEY, 'null'))
        if not isinstance(said, dict):
            raise InputError(f'{path} holds tensors, but no detector of this package')
        if said.get('format') != FORMAT:
            raise InputError(f'{path} has format {said.get("format")!r}, this reads {FORMAT}')
        arrays = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118
    params = said['params']
    if wrong := [k for k, v in params.items() if not _fits(v, cls().get_params().get(k))]:
        raise _wrong(path, f'params.{wrong[0]}')
    if large := [k for k, x in arrays.items() if x.dtype.kind == 'f' and (abs(x) > FARTHEST).any()]:
        raise _wrong(path, large[0])
    found = cls(**{**params, 'layers': tuple(str(layer) for layer in params['layers'])})
    found.range = None if found.range is None else tuple(float(v) for v in found.range)
    settings.check(found)
    found.max_pixels = min(found.max_pixels, MAX_PIXELS)  # a limit is the reader's
    found.encoder_digest_ = str(said['encoder'])
    known: dict[str, Normal] = {}
    for i, product in enumerate(said['products']):
        own = {k.split('.', 1)[1]: v for k, v in arrays.items() if k.startswith(f'product{i}.')}
        known[str(product['name'])] = _product(path, own, product, found.seed)
    if not known or len(known) != len(said['products']):
        raise _wrong(path, 'products')
    found.types_of_ = _types(path, said['types'], arrays, known)
    return found._limited(known)


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
    shapes = {
        'rows': (sum(lengths), dim), 'image': (len(rows),), 'cell': (len(rows), 2),
        'fold_of': (num,), 'sizes': (num, 2), 'dist': (held, WORST), 'worst': (held, WORST, dim),
        **dict.fromkeys(('number', 'score', 'first', 'num', 'low'), (held,)), 'peak': (dim,),
    }  # fmt: skip
    whole = ('image', 'cell', 'fold_of', 'sizes', 'number', 'num')
    for name, x in own.items():
        kind = np.int32 if name in whole else np.float32
        if x.dtype != kind or x.shape != shapes.get(name, x.shape) or not np.isfinite(x).all():
            raise _wrong(path, name)
    in_range = [('image', num), ('fold_of', len(lengths)), ('number', num)]
    for name, end in in_range:
        if len(own[name]) and not 0 <= own[name].min() <= own[name].max() < end:
            raise _wrong(path, name)
    vectors = tuple(own[k] for k in VECTORS if k in own)
    far = tuple(float(f) for f in said['far'])
    radius = [float(r) for r in said['radius']]
    texts = (said['name'], *said['names'], *said['group'])
    if (
        not all(map(is_text, texts)) or len(said['group']) != num or len(radius) != len(lengths)
        or not all(0 <= r < np.inf for r in radius) or min(lengths, default=0) < 0
        or len(vectors) not in (0, len(VECTORS)) or len(far) != len(vectors)
        or not np.isfinite(far).all() or (own['num'] < 1).any() or (own['sizes'] < 1).any()
        or not len(rows) or (own['cell'] < 0).any() or (held and own['dist'][:, 0].min() < 0)
    ):  # fmt: skip
        raise _wrong(path, 'a product')
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
    if not names:
        return NOTHING
    (dims,) = {sum(len(v) for v in known.mean) for known in products.values()}
    if (
        z.dtype != np.float32 or z.shape != (len(label), dims) or not np.isfinite(z).all()
        or label.dtype != np.int32 or set(label.tolist()) != set(range(len(names)))
        or len(set(names)) != len(names) or not all(map(is_text, said['names']))
    ):  # fmt: skip
        raise _wrong(path, 'types')
    limit, rate = said['threshold'], said['false_alarm']
    temperature = float(said['temperature'])
    told = (limit is None or abs(limit) < np.inf) and (rate is None or 0 <= rate <= 1)
    if not told or not 0 < temperature < np.inf:
        raise _wrong(path, 'types')
    return Types(
        tuple(names), z, label, temperature, -np.inf if limit is None else float(limit),
        None if rate is None else float(rate),
    )  # fmt: skip


def _wrong(path: Path, what: str) -> InputError:
    return InputError(f'{path}: {what} does not fit the rest of the file')
