"""Recipes: files with a `get_config`, by path or by the name of one that the package ships."""

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict, FieldReference

from anyshot_jax.config.modules import PACKAGE
from anyshot_jax.types import ROLES, InputError, nearest

_TASKS = (
    *(f'train.{field}' for field in ('ways', 'shots', 'queries')),
    *(f'eval.{field}' for field in ('tasks', 'queries')),
)


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


def keep_asked(config: ConfigDict, given: Mapping[str, Any]) -> None:
    """Tasks that a flag asks for are drawn or refused: nothing is made to fit the data instead.

    Args:
      given: values of flags by field, such as 'train.ways' or, of a stage, 'ridge.train.ways'.
    """
    for stage in ('', *config.get('stages', ())):
        section, prefix = (config[stage], f'{stage}.') if stage else (config, '')
        if any(f'{prefix}{task}' in given for task in _TASKS) and f'{prefix}fit_tasks' not in given:
            section.fit_tasks = False


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
    # Inside an installed package; beside it in a checkout.
    places = PACKAGE / 'configs', PACKAGE.parent / 'configs'
    shipped = next((f for f in places if f.is_dir()), None)
    recipes = {f.stem: f for f in shipped.glob('*.py')} if shipped else {}
    if name in recipes:
        return f'{os.path.relpath(recipes[name])}{colon}{arg}'
    if Path(name).stem in recipes:
        hint = f'; --config={Path(name).stem}{colon}{arg} is the one that the package ships'
    else:
        hint = nearest(Path(name).stem, recipes) if recipes else ''
    raise InputError(f'there is no recipe {name}{hint}')


class UnknownVariantError(InputError):
    """A recipe that was asked for a variant that it has not; `known` are those that it has."""

    def __init__(self, arg: str, known: tuple[str, ...]):
        self.known = known
        has = f'variant :{arg}{nearest(arg, known)}' if known else f'variants, got :{arg}'
        super().__init__(f'this recipe has no {has}')


def variant(arg: str, *known: str) -> str:
    """The argument of a recipe's `get_config`, checked: '' or one of `known`.

    Raises:
      UnknownVariantError: another one; names the nearest.
    """
    if arg and arg not in known:
        raise UnknownVariantError(arg, known)
    return arg


def recipe_module(file: str) -> ModuleType:
    """A recipe's file as a module of its own, which runs it."""
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
