"""A config's number that differs between the members of one program."""

import operator
from collections.abc import Callable
from typing import Any

from anyshot_jax.types import Array, InputError


class Varied:
    """Computes as the member's own traced value, and is compared as the values of all.

    A comparison on which all members agree, such as a check that a margin is positive, has one
    answer; where they don't, or a plain float is asked for, they need different programs.
    """

    __array_ufunc__ = None  # NumPy leaves products with it to us

    def __init__(self, traced: Array, path: str, every: tuple[float, ...], read: set[str]):
        """`read` gains the path once anything computes or decides by it."""
        self._value, self._path, self._every, self._read = traced, path, every, read

    @property
    def _traced(self) -> Array:
        self._read.add(self._path)
        return self._value

    def __jax_array__(self) -> Array:
        return self._traced

    def _agreed(self, answer: Callable[[float], bool]) -> bool:
        self._read.add(self._path)
        answers = {bool(answer(value)) for value in self._every}
        if len(answers) > 1:
            raise self._refusal()
        return answers.pop()

    def _refusal(self) -> InputError:
        values = ', '.join(f'{value:g}' for value in self._every)
        return InputError(
            f'config.vary: {self._path} = {values} cannot vary within one program, for it is '
            'another one for some of these values; vary it with python -m anyshot_jax.sweep'
        )

    def __bool__(self):
        return self._agreed(bool)

    def __float__(self):
        raise self._refusal()

    __int__ = __index__ = __float__
    __hash__ = None  # type: ignore[assignment]

    def __neg__(self):
        return -self._traced


def _compared(name: str) -> Callable:
    compare = getattr(operator, name)
    return lambda self, other: self._agreed(lambda value: compare(value, other))


def _computed(name: str, *, reflected: bool) -> Callable:
    compute = getattr(operator, name)

    def of(self, other: Any):
        other = other._traced if isinstance(other, Varied) else other
        return compute(other, self._traced) if reflected else compute(self._traced, other)

    return of


for _name in ('lt', 'le', 'gt', 'ge', 'eq', 'ne'):
    setattr(Varied, f'__{_name}__', _compared(_name))
for _name in ('add', 'sub', 'mul', 'truediv', 'pow'):
    setattr(Varied, f'__{_name}__', _computed(_name, reflected=False))
    setattr(Varied, f'__r{_name}__', _computed(_name, reflected=True))
