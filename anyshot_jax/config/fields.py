"""The complete config of a run: every field of the spine and of the chosen method, data and net.

A recipe starts from `defaults(...)` and assigns what differs. The result is locked and typed, so a
misspelt field or a wrong type fails where it is written, and every field can be set by a flag.
"""

import json
from typing import Any

from ml_collections import ConfigDict

from anyshot_jax.config.modules import check_code, find, net_fields
from anyshot_jax.config.stored import RENAMED, check_bounds, renamed
from anyshot_jax.types import InputError, nearest

# The spine's own fields. Counts of steps are optimiser steps; 0 switches a periodic thing off.
SPINE: dict[str, Any] = {
    'seed': 0,
    # A population in one program (population.py): so many seeds from `seed` on, each with every
    # value of fields that vary, (('method.inner_lr', (0.1, 0.4)), ...).
    'num_seeds': 1,
    'vary': (),
    'member_chunk': 0,  # members computed at once; 0: right for the backend
    'num_steps': 1000,
    'batch_size': 8,  # tasks (episodes, pairs, items) a step over all devices
    'steps_per_call': 10,  # steps that one compiled call scans over
    'task_chunk': 0,  # tasks differentiated at once; 0: right for the backend
    'log_every': 100,
    'eval_every': 500,
    'save_every': 500,
    'early_stop': 0,  # validations without a new best before training stops; 0: never
    'stop_at': 0.0,  # training stops once validation's value has reached this; 0: never
    'eval_only': False,
    # True: ways, shots and queries become what the classes allow, where that is less, and a line
    # says so; False: they are refused.
    'fit_tasks': False,
    'plan': False,  # print what the run needs of memory and time, and end
    'plan_for': '',  # of a machine that isn't there: v4 | v5e | a100 | h100 (runtime/ahead.py)
    'features_from': '',  # an earlier stage whose exported features stand in for the items
    'encoder': '',  # frozen, its features stand in for images: encoders.NAMES, FILE or NAME=FILE
    'encoder_dtype': 'float32',  # float32 | bfloat16
    'encoder_parts': (),  # joined to its features: maps by name ('stride8', ...), 'colours' last
    'residual': {  # patch features minus their nearest normal ones stand in for images
        'encoder': '',  # as config.encoder; '': images stay images
        'layers': ('stride16', 'stride32'),  # its maps that patches are made of
        'head': 'head',  # its map that is added to a peak; '': none
        'size': 384,  # pixels of the images' shorter side as the encoder sees them; 0: its own
        'dim': 0,  # numbers a patch; 0: all channels
        'ratio': 0.01,  # share of the normal patches to remember
        'output': 'peak',  # peak: vectors | map: residuals [h, w, D]
        'sharpness': 16.0,  # power of the distances that weigh a peak's patches; 0: their mean
        'subtract': True,  # False: the patches themselves, to see what residuals are good for
        # Synthetic defects against normal patches, like real ones, or (the paper's) against the
        # same patch of the image that they were made on: nearest | source.
        'synthetic_against': 'nearest',
        # Also the mean images of drawn support, for config.method.prototypes='pixels'.
        'average_shots': (),  # of so many images each, such as (1, 2, 5)
        'average_draws': 100,
    },
    'describe': {  # class names and descriptions as vectors, in the data's extras
        'by': '',  # tfidf | subwords | minilm_l6 | clip_vit_b32; '': none
        'templates': ('{text}',),  # {text}: name and description; {name}: the name
        'colours': False,  # also the colours that they name, extras['colours']
    },
    'train': {
        'ways': 5,
        'shots': 1,
        'queries': 15,
        'within': '',  # classes of one kind, a name in the data's extras such as alphabet; '': any
    },
    'augment': {  # of training images: uniform in +- each (augment.affine)
        'degrees': 0.0,
        'shear': 0.0,
        'scale': 0.0,
        'shift': 0.0,  # pixels
    },
    'eval': {
        'tasks': ((5, 1), (5, 5)),  # (ways, shots) of every column of the result; () with retrieval
        'queries': 15,
        'role': 'test',  # val: look at the validation classes only, as when choosing
        'within': '',  # the same tasks also within one kind, like train.within; '': not
        'episodes': 600,
        'val_episodes': 200,
        'retrieval': False,  # every item asks for the others of its class: mAP, recall@k, ...
        'retrieval_at': (1, 5),  # the k of recall@k and precision@k
        'select': '',  # the value that picks the best step, e.g. '5-way 1-shot'; '': the first
    },
    'optim': {
        'name': 'adam',  # adam | adamw | sgd
        'learning_rate': 1e-3,
        'schedule': 'constant',  # constant | cosine | linear | halve
        'halve_every': 2000,
        'warmup_steps': 0,
        'weight_decay': 0.0,
        'momentum': 0.9,  # of sgd
        'b1': 0.9,  # of adam and adamw
        'b2': 0.999,
        'clip_norm': 0.0,  # 0: no clipping
        'layer_rates': (),  # ((name, factor), ...): subtrees whose learning rate is a multiple
        'frozen': (),  # names of parameter subtrees that stay as they are
    },
}


def defaults(method: str, data: str, net: str = '') -> ConfigDict:
    """Every field of a run with `methods/<method>.py`, `data/<data>.py` and `nets/<net>.py`.

    Raises:
      InputError: no such file; names the nearest one.
    """
    fields = {
        **SPINE,
        'method': {'name': method, **find('methods', method).DEFAULTS},
        'data': {'name': data, 'dir': '', **find('data', data).DEFAULTS},
        'net': {'name': net, **(net_fields(net) if net else {})},
    }
    return ConfigDict(fields).lock()


def check(config: ConfigDict) -> ConfigDict:
    """A locked copy of `config` in which every field is known, typed and present.

    Raises:
      InputError: an unknown field (the nearest is named) or a value of the wrong type.
    """
    if 'stages' in config:
        raise InputError('a stage cannot have stages of its own')
    for part in ('method', 'data'):
        if not getattr(config.get(part), 'name', ''):
            raise InputError(
                f'config.{part}.name is missing: it is the name of a file in anyshot_jax'
            )
    full = defaults(config.method.name, config.data.name, config.get('net', {}).get('name', ''))
    _assign(full, config, 'config')
    return full


def _assign(full: ConfigDict, given: ConfigDict, path: str) -> None:
    for name, value in given.items():
        if name not in full:
            if new := RENAMED.get(f'{path}.{name}'.removeprefix('config.')):
                raise InputError(f'{path}.{name} is called config.{new} now')
            raise InputError(f'unknown field {path}.{name}{nearest(name, full.keys())}')
        if isinstance(full[name], ConfigDict):
            if not isinstance(value, ConfigDict):
                raise InputError(f'{path}.{name} has fields of its own, got {value!r}')
            _assign(full[name], value, f'{path}.{name}')
            continue
        try:
            full[name] = value
        except TypeError as e:
            want = type(full[name]).__name__
            raise InputError(f'{path}.{name} must be {want}, got {value!r}') from e


def from_json(text: str) -> ConfigDict:
    """The config of one stage that `to_json` wrote; fields that it lacks have their defaults.

    Raises:
      InputError: no config, one of several stages, of a file that is not there any more, with
        values larger than any run's (`check_bounds`), or that names code which is not the package's
        own (`check_code`).
    """
    try:
        given = json.loads(text)
        check_bounds(given)
        fields = renamed(given)
        names = {part: str(fields[part]['name']) for part in ('method', 'data', 'net')}
        check_code(fields)
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise InputError(f'not the config of a single-stage run: {type(e).__name__}: {e}') from e
    full = defaults(**names)
    try:
        full.update(_tuples(fields))
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as e:
        raise InputError(f'a config of another version: {e}') from e
    return check(full)


def _tuples(value: Any) -> Any:
    """JSON has lists where configs have tuples."""
    if isinstance(value, dict):
        return {k: _tuples(v) for k, v in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
