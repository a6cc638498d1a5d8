"""A fitted classifier as one .safetensors file: arrays, and JSON in its header. Nothing is run.

safetensors' metadata {'anyshot_jax': JSON}, tensors support_features, support_label,
support_pictures, head.<field> as nearest_mean.Head has them, and joint.<field> of a classifier
that words tell, too
"""

import json
import os
import re
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from anyshot_jax.classify.joint import Joint
from anyshot_jax.classify.nearest_mean import Head, Space
from anyshot_jax.classify.picture_input import THUMBNAIL
from anyshot_jax.types import InputError

FORMAT = 1
KEY = 'anyshot_jax'
MAX_BYTES = 8 << 30


def write(path: Path, classifier: Any) -> None:
    """The file, whole or not at all.

    Raises:
      InputError: another suffix, or labels that JSON can't keep.
    """
    from safetensors.numpy import save

    if path.suffix != '.safetensors':
        raise InputError(f'{path}: a model is a .safetensors file')
    labels = classifier.classes_.tolist()
    if not all(isinstance(c, (str, int, float, bool)) for c in labels):
        raise InputError(f'labels like {labels[0]!r} cannot be kept: use texts or numbers')
    said = {
        'format': FORMAT,
        'params': classifier.get_params(),
        'classes': labels,
        'dtype': 'object' if classifier.classes_.dtype == object else classifier.classes_.dtype.str,
        'descriptions': [[c, t] for c, t in classifier.descriptions_.items()],
        'names': list(classifier.support_names_),
        'of_pictures': bool(classifier.of_images_),
        'false_alarm': classifier.false_alarm_,
        'encoder': classifier.encoder_.encoder.digest if classifier.of_images_ else '',
    }
    head = {f'head.{k}': v for k, v in _flat(classifier.head_).items()}
    if classifier.joint_ is not None:
        head |= {f'joint.{k}': np.asarray(v) for k, v in classifier.joint_._asdict().items()}
    arrays = {
        'support_features': classifier.support_features_,
        'support_label': np.searchsorted(classifier.classes_, classifier.support_labels_),
        'support_pictures': classifier.support_images_,
        'held_out': classifier.held_out_,
        **head,
    }
    try:
        header = {KEY: json.dumps(said, allow_nan=False)}
    except (TypeError, ValueError) as e:
        raise InputError(f'{path}: a parameter or label cannot be kept: {e}') from e
    data = save({k: np.array(v, order='C') for k, v in arrays.items()}, header)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix='.', suffix='.tmp')
    try:
        with os.fdopen(handle, 'wb') as f:
            f.write(data)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def _flat(head: Head) -> dict[str, np.ndarray]:
    fields = head._asdict()
    space = fields.pop('space')._asdict()
    return {k: np.asarray(v, np.float32) for k, v in {**space, **fields}.items()}


def read(path: Path, cls: type) -> Any:
    """The classifier, of class `cls`.

    Raises:
      InputError: no file, damaged, another program's, or parts that don't fit; names the file.
    """
    if not path.is_file():
        raise InputError(f'no model at {path}')
    if path.stat().st_size > MAX_BYTES:
        raise InputError(f'{path} is larger than any model that is read here')
    try:
        return _restore(path, cls)
    except InputError:
        raise
    except Exception as e:  # whatever hostile bytes lead to, the file is the reason
        raise InputError(f'{path} is damaged, or no model: {type(e).__name__}: {e}') from e


def _restore(path: Path, cls: type) -> Any:
    from safetensors import safe_open

    with safe_open(str(path), framework='np') as f:
        said = json.loads((f.metadata() or {}).get(KEY, 'null'))
        if not isinstance(said, dict):
            raise InputError(f'{path} holds tensors, but no classifier of this package')
        if said.get('format') != FORMAT:
            raise InputError(f'{path} has format {said.get("format")!r}, this reads {FORMAT}')
        arrays = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118
    x, label = arrays['support_features'], arrays['support_label']
    num, (count, dim) = len(said['classes']), x.shape
    head_fields = {k: arrays[f'head.{k}'] for k in (*Space._fields, *Head._fields[1:])}
    _check(path, arrays, label, num, count, dim, head_fields, said)
    made: Any = cls(**said['params'])
    a_folder = type(made) is not cls
    if a_folder:
        raise InputError(f'{path}: method={said["params"]["method"]!r} is a folder, not a method')
    made.check_params()
    made.classes_ = _classes(path, said)
    made.of_images_, made.n_features_in_ = bool(said['of_pictures']), dim
    made.support_features_, made.support_images_ = x, arrays['support_pictures']
    made.support_labels_ = made.classes_[label]
    made.support_names_ = [str(n) for n in said['names']]
    made.descriptions_ = {c: str(t) for c, t in said['descriptions']}
    space = Space(**{k: head_fields[k] for k in Space._fields})
    made.head_ = Head(space, **{k: head_fields[k] for k in Head._fields[1:]})
    made.joint_ = _joint(path, arrays, num, dim)
    made.held_out_ = arrays['held_out']
    made.temperature_ = float(made.head_.temperature)
    limit = float(made.head_.threshold)
    made.threshold_ = limit if np.isfinite(limit) else None
    made.false_alarm_ = said['false_alarm']
    made.encoder_digest_ = str(said['encoder'])
    made.index_support()
    return made


def _joint(path: Path, arrays: dict, num: int, dim: int) -> Joint | None:
    if not any(name.startswith('joint.') for name in arrays):
        return None
    found = Joint(*(arrays[f'joint.{k}'] for k in Joint._fields))
    width = found.texts.shape[-1]
    shapes = (num, width), (num,), (num,), (num,)
    for name, a, shape in zip(Joint._fields, found, shapes, strict=True):
        if a.dtype != np.float32 or a.shape != shape or not np.isfinite(a).all() or width > dim:
            raise InputError(f'{path}: joint.{name} does not fit the rest of the file')
    return found


def _classes(path: Path, said: dict) -> np.ndarray:
    """The labels: of one kind, each once, in order; texts as long as they are, not as is said."""
    labels, dtype = said['classes'], str(said['dtype'])
    numbers = re.fullmatch(r'[<>|=][biuf][1248]', dtype)
    kind = (bool, int, float) if numbers else str
    if not all(isinstance(c, kind) for c in labels) or sorted(set(labels)) != labels:
        raise InputError(f'{path}: classes do not fit the rest of the file')
    return np.array(labels, dtype=dtype if numbers else object if dtype == 'object' else None)


def _check(path, arrays, label, num, count, dim, head, said) -> None:
    r = head['axes'].shape[-1]
    shapes = {
        'shift': (dim,), 'axes': (dim, r), 'gain': (r,), 'means': (num, dim), 'bias': (num,),
    }  # fmt: skip
    wrong = [k for k, v in head.items() if v.dtype != np.float32 or v.shape != shapes.get(k, ())]
    wrong += [k for k, v in head.items() if k != 'threshold' and not np.isfinite(v).all()]
    if label.shape != (count,) or len(said['names']) != count or (
        count and (label.min() < 0 or label.max() >= num)
    ):  # fmt: skip
        wrong.append('support_label')
    if arrays['support_pictures'].shape != (count, THUMBNAIL, THUMBNAIL, 3):
        wrong.append('support_pictures')
    if not np.isfinite(arrays['support_features']).all():
        wrong.append('support_features')
    if arrays['held_out'].shape != (count, num):
        wrong.append('held_out')
    if wrong or not num:
        raise InputError(f'{path}: {", ".join(wrong) or "classes"} do not fit the rest of the file')
