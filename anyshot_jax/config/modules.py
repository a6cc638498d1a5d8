"""The modules that a config names: methods, data and nets, and the user's own by a dotted name."""

import dataclasses
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from anyshot_jax.types import InputError, nearest

PACKAGE = Path(__file__).parent.parent


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
    files = [m.name for m in pkgutil.iter_modules([str(PACKAGE / folder)])]
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
