"""A fitted classifier as one .safetensors file: arrays, and JSON in its header. Nothing is run.

safetensors' metadata {'anyshot_jax': JSON}, tensors support_features, support_label,
support_pictures, head.<field> as nearest_mean.Head has them, and joint.<field> of a classifier
that words tell, too
"""

import re
from pathlib import Path
from typing import Any

import numpy as np

from anyshot_jax.classify import nearest_mean
from anyshot_jax.classify.joint import Joint
from anyshot_jax.classify.nearest_mean import Head, Space
from anyshot_jax.classify.picture_input import MAX_PIXELS, THUMBNAIL
from anyshot_jax.classify.vectors import AS_THEY_ARE, Frame
from anyshot_jax.storage import tensors
from anyshot_jax.types import InputError, is_text

FORMAT = 3
# 1 had no levels of classes: the threshold is of the best score itself. 1 and 2 chose nothing.
READ = (1, 2, 3)
KEY = 'anyshot_jax'
LONGEST = 1_000  # characters of a label: an array of labels has the longest one's room for each
ANSWERS = 1 << 20  # probabilities that are tried together
HEAD = (*Space._fields, *Head._fields[1:])
LEVELS = ('head.level', 'head.crowd')


def write(path: Path, classifier: Any) -> None:
    """The file, whole or not at all.

    Raises:
      InputError: another suffix, labels that JSON can't keep, or it can't be written.
    """
    tensors.check_suffix(path)
    labels = classifier.classes_.tolist()
    if not all(isinstance(c, (str, int, float, bool)) for c in labels):
        raise InputError(f'labels like {labels[0]!r} cannot be kept: use texts or numbers')
    if bad := [c for c in labels if isinstance(c, str) and not is_text(c)]:
        raise InputError(f'the label {bad[0]!r} cannot be kept: it is no text of Unicode')
    if bad := [c for c in labels if isinstance(c, str) and len(c) > LONGEST]:
        raise InputError(f'the label {bad[0][:40]!r}... is longer than {LONGEST:,} characters')
    said = {
        'format': FORMAT,
        'params': classifier.get_params(),
        'classes': labels,
        'dtype': 'object' if classifier.classes_.dtype == object else classifier.classes_.dtype.str,
        'descriptions': [[c, t] for c, t in classifier.descriptions_.items()],
        'names': [tensors.shown(name) for name in classifier.support_names_],
        'of_pictures': bool(classifier.of_images_),
        'false_alarm': classifier.false_alarm_,
        'unseen_detected': classifier.unseen_detected_,
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
    if not classifier.frame_.as_they_are:
        arrays['frame.centre'] = classifier.frame_.centre
        arrays['frame.scale'] = np.float64(classifier.frame_.scale)
    tensors.write(path, KEY, said, arrays)


def _flat(head: Head) -> dict[str, np.ndarray]:
    fields = head._asdict()
    space = fields.pop('space')._asdict()
    return {k: np.asarray(v, np.float32) for k, v in {**space, **fields}.items()}


def read(path: Path, cls: type) -> Any:
    """The classifier, of class `cls`.

    Raises:
      InputError: no file, damaged, another program's, or parts that don't fit; names the file.
    """
    restore = lambda said, arrays: _restore(path, cls, said, arrays)
    return tensors.read(path, KEY, 'classifier', READ, restore)


def _frame(path: Path, arrays: dict[str, np.ndarray], dim: int) -> Frame:
    """From where the model sees vectors."""
    if 'frame.centre' not in arrays:
        return AS_THEY_ARE
    centre, scale = arrays['frame.centre'], arrays['frame.scale']
    fits = (
        centre.shape == (dim,) and scale.shape == () and centre.dtype == scale.dtype == np.float64
    )
    if not fits or not np.isfinite(centre).all() or not 0 < scale < np.inf:
        raise InputError(f'{path} is damaged: frame does not fit its features')
    return Frame(centre, float(scale))


def _restore(path: Path, cls: type, said: dict, arrays: dict[str, np.ndarray]) -> Any:
    x, label = arrays['support_features'], arrays['support_label']
    num, (count, dim) = len(said['classes']), x.shape
    if said['format'] == 1:
        arrays |= dict(
            zip(LEVELS, (np.zeros(num, np.float32), np.zeros((), np.float32)), strict=True)
        )
    head_fields = {k: arrays[f'head.{k}'] for k in HEAD}
    _check(path, arrays, label, num, count, dim, head_fields, said)
    # As before there was a choice.
    made: Any = cls(**{'crop': 'centre', 'adapt': False, **said['params']})
    a_folder = type(made) is not cls
    if a_folder:
        raise InputError(f'{path}: method={said["params"]["method"]!r} is a folder, not a method')
    made.check_params()
    made.max_pixels = min(made.max_pixels, MAX_PIXELS)  # a limit is the reader's
    made.classes_ = _classes(path, said)
    made.of_images_, made.n_features_in_ = said['of_pictures'], dim
    made.frame_ = _frame(path, arrays, dim)
    made.support_features_, made.support_images_ = x, arrays['support_pictures']
    made.support_labels_ = made.classes_[label]
    made.support_names_ = [tensors.shown(n) for n in said['names']]
    made.descriptions_ = dict(said['descriptions'])
    space = Space(**{k: head_fields[k] for k in Space._fields})
    made.head_ = Head(space, **{k: head_fields[k] for k in Head._fields[1:]})
    made.joint_ = _joint(path, arrays, num, dim)
    made.held_out_ = arrays['held_out']
    made.temperature_ = float(made.head_.temperature)
    limit = float(made.head_.threshold)
    made.threshold_ = limit if np.isfinite(limit) else None
    made.false_alarm_ = said['false_alarm']
    made.unseen_detected_ = said.get('unseen_detected')
    made.encoder_digest_ = said['encoder']
    asked, few = (x if count else made.head_.means), max(1, ANSWERS // num)
    for start in range(0, len(asked), few):
        with np.errstate(all='ignore'):
            z = nearest_mean.place(space, asked[start : start + few].astype(np.float32))
            score = nearest_mean.scores(made.head_, z).astype(np.float64)
            answers = nearest_mean.probabilities(score, made.temperature_)
        if not np.isfinite(answers).all():
            raise InputError(f'{path}: its numbers are too large for probabilities')
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
    short = all(len(c) <= LONGEST for c in labels if isinstance(c, str))  # before an array is made
    if short and all(isinstance(c, (bool, int, float) if numbers else str) for c in labels):
        kind = dtype if numbers else object if dtype == 'object' else None
        classes = np.array(labels, dtype=kind)
        # As that type has them: another number may be the same there, or none at all.
        same = classes.tolist() == labels and sorted(set(labels)) == labels
        if same and (numbers or all(map(is_text, labels))):
            return classes
    raise InputError(f'{path}: classes do not fit the rest of the file')


def _check(path, arrays, label, num, count, dim, head, said) -> None:
    r, width = head['axes'].shape[-1], min(head['shift'].size, dim)  # of the leading features
    shapes = {
        'shift': (width,), 'axes': (width, r), 'gain': (r,), 'means': (num, width), 'bias': (num,),
        'level': (num,),
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
    kinds = {
        'support_features': 'f',
        'support_label': 'iu',
        'support_pictures': 'u',
        'held_out': 'f',
    }
    wrong += [k for k, kind in kinds.items() if arrays[k].dtype.kind not in kind]
    if arrays['support_pictures'].dtype != np.uint8:
        wrong.append('support_pictures')
    wrong += [k for k in ('power', 'temperature') if not head[k] > 0]
    if not head['threshold'] < np.inf:  # NaN neither
        wrong.append('threshold')
    wrong += _wrong_fields(said)
    if wrong or not num:
        names = ', '.join(dict.fromkeys(wrong)) or 'classes'
        raise InputError(f'{path}: {names} do not fit the rest of the file')


def _wrong_fields(said: dict) -> list[str]:
    """The names of the JSON's fields that are of another kind than `write` gives them."""
    share, pairs = said['false_alarm'], said['descriptions']
    detected = said.get('unseen_detected')
    params, known = said['params'], said['classes']
    is_number = lambda x: isinstance(x, (int, float)) and not isinstance(x, bool)
    wrong = {
        'of_pictures': not isinstance(said['of_pictures'], bool),
        'names': not all(isinstance(n, str) for n in said['names']),
        'encoder': not isinstance(said['encoder'], str),
        'unseen_detected': detected is not None
        and not (is_number(detected) and 0 <= detected <= 1),
        'false_alarm': share is not None and not (is_number(share) and 0 <= share <= 1),
        'descriptions': not all(
            isinstance(p, list) and len(p) == 2 and p[0] in known and is_text(p[1]) for p in pairs
        )
        or len({p[0] for p in pairs}) < len(pairs),
    }
    unknown = params.get('unknown')
    of_texts = bool(known) and isinstance(known[0], str)  # numbers among them can't be answers
    wrong |= {
        f'params.{k}': not is_text(params.get(k, '')) for k in ('encoder', 'method', 'text_encoder')
    }
    wrong |= {f'params.{k}': not is_number(params.get(k, 0.5)) for k in ('false_alarm', 'shrink')}
    wrong['params.unknown'] = not (
        unknown is None or is_text(unknown) or (is_number(unknown) and not of_texts)
    )
    wrong['params.max_pixels'] = type(params.get('max_pixels', 1)) is not int
    wrong['params.adapt'] = not isinstance(params.get('adapt', False), bool)
    wrong['params.normalise'] = params.get('normalise') not in (None, True, False)
    power = params.get('power')
    wrong['params.power'] = power is not None and not (is_number(power) and 0 < power < np.inf)
    return [name for name, bad in wrong.items() if bad]
