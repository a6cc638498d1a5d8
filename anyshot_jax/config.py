"""The complete config of a run: every field of the spine and of the chosen method, data and net.

A recipe starts from `defaults(...)` and assigns what differs. The result is locked and typed, so a
misspelt field or a wrong type fails where it is written, and every field can be set by a flag.
"""

import contextlib
import dataclasses
import hashlib
import importlib
import inspect
import json
import os
import pkgutil
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict, FieldReference

from anyshot_jax.types import ROLES, ArgumentError, InputError, nearest

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
        'by': '',  # tfidf | minilm_l6 | clip_vit_b32; '': none
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


def in_stages(**stages: ConfigDict) -> ConfigDict:
    """A recipe of several stages, run in this order.

    `seed`, `plan`, `plan_for` and `data.dir` are one field for all of them, also at the top; every
    other field of a stage stands below its name.

    Raises:
      InputError: a stage that is called like a role of the data, or like a field of the recipe.
    """
    for name in stages:
        if name in (*ROLES, 'stages', 'seed', 'plan', 'plan_for', 'data'):
            what = 'a role of the data' if name in ROLES else 'a field of the recipe'
            raise InputError(f'a stage cannot be called {name!r}, which is {what}: rename it')
    seed, plan, directory = FieldReference(0), FieldReference(False), FieldReference('')
    plan_for = FieldReference('')
    for stage in stages.values():
        stage.seed, stage.plan, stage.data.dir = seed, plan, directory
        stage.plan_for = plan_for
    shared = {'seed': seed, 'plan': plan, 'plan_for': plan_for, 'data': {'dir': directory}}
    return ConfigDict({'stages': tuple(stages), **shared, **stages}).lock()


def recipe_file(recipe: str) -> str:
    """The path of a recipe, followed by :VARIANT where one is asked for.

    Args:
      recipe: a path, or the name of a recipe that the package ships, such as 'quickstart'.
    Raises:
      InputError: no such file or name; names the nearest recipe.
    """
    name, colon, arg = recipe.partition(':')
    if Path(name).is_file():
        return recipe
    package = Path(__file__).parent
    # Inside an installed package; beside it in a checkout.
    places = package / 'configs', package.parent / 'configs'
    shipped = next((f for f in places if f.is_dir()), None)
    recipes = {f.stem: f for f in shipped.glob('*.py')} if shipped else {}
    if name in recipes:
        return f'{os.path.relpath(recipes[name])}{colon}{arg}'
    if Path(name).stem in recipes:
        hint = f'; --config={Path(name).stem}{colon}{arg} is the one that the package ships'
    else:
        hint = nearest(Path(name).stem, recipes) if recipes else ''
    raise InputError(f'there is no recipe {name}{hint}')


def variant(arg: str, *known: str) -> str:
    """The argument of a recipe's `get_config`, checked: '' or one of `known`.

    Raises:
      InputError: another one; names the nearest.
    """
    if arg and not known:
        raise InputError(f'this recipe has no variants, got :{arg}')
    if arg and arg not in known:
        raise InputError(f'this recipe has no variant :{arg}{nearest(arg, known)}')
    return arg


def check_choices(
    fields: Mapping[str, Any], choices: Mapping[str, Collection[str]], path: str = 'config.method'
) -> None:
    """Refuses a field whose value is none of its choices.

    Args:
      fields: a section of a config. choices: by field, the values that it may have.
      path: the section's name.
    Raises:
      InputError: another value; names the field and the nearest choice.
    """
    for name, known in choices.items():
        if fields[name] not in known:
            value = fields[name]
            raise InputError(f'{path}.{name}={value!r} is unknown{nearest(str(value), known)}')


@contextlib.contextmanager
def under(path: str, **renamed: str) -> Iterator[None]:
    """Errors about an argument of what is called inside name the field that the user has set.

    Args:
      path: a section of the config, whose field has the argument's name; '': none, names stay.
      renamed: by argument, the whole name where it is another.
    Raises:
      ArgumentError: with that name.
    """
    try:
        yield
    except ArgumentError as e:
        name = renamed.get(e.name, f'{path}.{e.name}' if path else e.name)
        raise ArgumentError(name, e.problem) from e


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


def find(folder: str, name: str):
    """The module anyshot_jax/<folder>/<name>.py: the file name is the registry.

    A dotted name is a module of the user's own, such as 'my_project.nearest_mean'. It is imported,
    which runs it: a name that was read from a file has to pass `check_code` before.

    Raises:
      InputError: no such module, or one that is none of this kind; names the nearest one.
    """
    registers = 'Net' if folder == 'nets' else 'DEFAULTS'
    if '.' in name:
        try:
            own = importlib.import_module(name)
        except (ImportError, TypeError, ValueError) as e:
            raise InputError(f'config asks for the module {name}: {e}') from e
        if not hasattr(own, registers):
            raise InputError(f'config asks for the module {name}, which has no {registers}')
        return own
    files = [m.name for m in pkgutil.iter_modules([str(Path(__file__).parent / folder)])]
    module = importlib.import_module(f'anyshot_jax.{folder}.{name}') if name in files else None
    if not hasattr(module, registers):
        modules = {f: importlib.import_module(f'anyshot_jax.{folder}.{f}') for f in files}
        registered = [f for f, m in modules.items() if hasattr(m, registers)]
        raise InputError(f'no anyshot_jax/{folder}/{name}.py{nearest(name, registered)}')
    return module


def check_code(fields: Any) -> None:
    """Refuses a config that was read from a file and names code other than the package's own.

    Args:
      fields: as JSON has them. What is imported already may be named: its user has run it.
    Raises:
      InputError: names the module, and says what to do about one that is trusted.
    """
    for name in user_modules(fields):
        if name not in sys.modules:
            raise InputError(
                f'it names the module {name!r}, which would run: files may name the methods, data '
                'and nets of anyshot_jax only. If you trust it, import it before, or give the '
                'command --allow_code'
            )


def user_modules(fields: Any) -> Iterator[str]:
    """The dotted names of a config's methods, data and nets."""
    for key, value in fields.items() if isinstance(fields, dict) else ():
        yield from user_modules(value)
        if key in ('name', 'source') and isinstance(value, str) and '.' in value:
            yield value


def net_fields(name: str) -> dict[str, Any]:
    """The fields of nets/<name>.py: `Net` and their defaults."""
    return {
        f.name: f.default
        for f in dataclasses.fields(find('nets', name).Net)
        if f.name not in ('parent', 'name')
    }


def build_net(net: ConfigDict):
    """The Linen module that config.net describes.

    Raises:
      InputError: one of the user's own that can't be called as nets are.
    """
    fields = net.to_dict()
    name = fields.pop('name')
    module = find('nets', name).Net(**fields)
    takes = inspect.signature(type(module).__call__).parameters.values()
    missing = {'train', 'transductive'} - {p.name for p in takes}
    if '.' in name and missing and not any(p.kind is p.VAR_KEYWORD for p in takes):
        raise InputError(
            f'config.net.name={name}: a net is called as net(x, train=..., transductive=...), but '
            f'its __call__ takes no {" and no ".join(sorted(missing))}; write '
            'def __call__(self, x, *, train, transductive=False)'
        )
    return module


# By the name that a field had before, in any stage: its name now.
RENAMED = {
    'residual.made_up_against': 'residual.synthetic_against',
    'method.fakes': 'method.synthesised',
    'method.fakes_from': 'method.synthesised_from',
    'method.fake_weight': 'method.synthesised_weight',
    'method.fake_contrast': 'method.synthesised_contrast',
}


def renamed(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a config as an earlier version wrote it, by the names that they have now."""
    part: dict[str, Any] = {}
    for name, value in fields.items():
        is_stage = isinstance(value, dict) and isinstance(value.get('method'), dict)
        part[name] = renamed(value) if is_stage else value
    for old, new in RENAMED.items():
        section, name = old.split('.')
        if isinstance(part.get(section), dict) and name in part[section]:
            value = part[section][name]
            rest = {k: v for k, v in part[section].items() if k != name}
            part[section] = {**rest, new.split('.')[1]: value}
    return part


def differences(old: dict, new: dict) -> list[str]:
    """'config.a.b: 1 -> 2' for every field in which two configs (as from `to_json`) differ.

    A field that `old` lacks is one that the package has gained since; its default says as before.
    One that was renamed since is no difference.
    """
    return _differences(renamed(old), new, 'config')


def _differences(old: dict, new: dict, prefix: str) -> list[str]:
    lines = []
    for name in sorted(old):
        a, b, path = old.get(name), new.get(name), f'{prefix}.{name}'
        if isinstance(a, dict) and isinstance(b, dict):
            lines += _differences(a, b, path)
        elif a != b:
            lines.append(f'{path}: {a} -> {b}')
    return lines


def to_json(config: ConfigDict) -> str:
    """The config as JSON with sorted keys: what a workdir keeps and what its hash is taken of."""
    return json.dumps(config.to_dict(), indent=1, sort_keys=True)


def from_json(text: str) -> ConfigDict:
    """The config of one stage that `to_json` wrote; fields that it lacks have their defaults.

    Raises:
      InputError: no config, one of several stages, of a file that is not there any more, or that
        names code which is not the package's own (`check_code`).
    """
    try:
        fields = renamed(json.loads(text))
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


NOT_HASHED = ('eval_only', 'plan', 'plan_for')  # fields that change no result


def config_hash(config: ConfigDict) -> str:
    """12 hex digits that two runs share if all their fields are equal.

    All but NOT_HASHED and data.dir.
    """
    fields = config.to_dict()
    for part in (fields, *(fields[name] for name in fields.get('stages', ()))):
        for name in NOT_HASHED:
            part.pop(name, None)
        part['data'] = {**part.get('data', {}), 'dir': ''}
    return hashlib.sha256(to_json(ConfigDict(fields)).encode()).hexdigest()[:12]
