"""Checks of a section's values, and errors that name the field which the user has set."""

import contextlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import jax

from anyshot_jax.types import ArgumentError, InputError, nearest


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


def check_above(fields: Mapping[str, Any], path: str = 'config.method', **bounds: float) -> None:
    """Refuses a field whose number is not above its bound, which is exclusive.

    Args:
      fields: a section of a config. A traced number passes: before it became one, each member's
        was checked. bounds: by field. path: the section's name.
    Raises:
      InputError: another number; names the field and the bound.
    """
    for name, bound in bounds.items():
        value = fields[name]
        if not isinstance(value, jax.core.Tracer) and not value > bound:
            least = f'>= {bound + 1}' if isinstance(value, int) else f'> {bound}'
            raise InputError(f'{path}.{name}={value} must be {least}')


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
