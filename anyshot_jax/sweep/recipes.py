"""Recipes and sweep files: Python files outside of the package, read by path."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from absl import flags
from ml_collections import ConfigDict, config_flags

from anyshot_jax import config as configs
from anyshot_jax.types import InputError


def load_module(path: Path) -> ModuleType:
    """A Python file that is no part of a package."""
    spec = importlib.util.spec_from_file_location(f'_{path.stem}', path)
    if not path.exists() or spec is None or spec.loader is None:
        raise InputError(f'{path} is not there')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_config(recipe: str, overrides: Sequence[str], root: Path = Path()) -> ConfigDict:
    """The config that main.py would get from --config=<recipe> and one --config.<override> each.

    Args:
      recipe: a path from `root` or the name of a shipped recipe, with :VARIANT where it has one.
    Raises:
      InputError: no such file, or an override that it refuses.
    """
    file, _, argument = recipe.partition(':')
    if not (root / file).is_file():
        file = configs.recipe_file(recipe).partition(':')[0]
    config = load_module(root / file).get_config(*filter(None, [argument]))
    argv = ['', *(f'--config.{o}' for o in overrides)]
    values = flags.FlagValues()
    try:
        config_flags.DEFINE_config_dict('config', config, flag_values=values, sys_argv=argv)
        values(argv)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as e:
        raise InputError(f'{recipe} with {list(overrides)}: {e}') from e
    configs.keep_asked(config, config_flags.get_override_values(values['config']))
    return config if 'stages' in config else configs.check(config)
