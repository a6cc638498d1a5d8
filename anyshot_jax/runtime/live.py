"""The memory that a traced program needs, from shapes: what is alive at once."""

from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import Literal, Var

from anyshot_jax.runtime.flops import inner_jaxprs


def peak(function: Callable, *args: Any) -> int:
    """The most bytes that the values computed by a call hold at once, its arguments not counted.

    A value lives from where it is computed to its last use. An upper bound of what a compiler
    needs, which fuses much of it away, and known without one. Of a loop the body counts once, and
    what it stacks.
    """
    return of_jaxpr(jax.make_jaxpr(function)(*args).jaxpr)


def of_jaxpr(jaxpr: Any) -> int:
    """`peak` of a program that is traced already."""
    last = {v: len(jaxpr.eqns) for v in jaxpr.outvars if isinstance(v, Var)}
    for i, eqn in reversed(list(enumerate(jaxpr.eqns))):
        for v in eqn.invars:
            if not isinstance(v, Literal):
                last.setdefault(v, i)
    alive, most = 0, 0
    ends: dict[int, int] = {}  # bytes whose last use is the equation of that number
    for i, eqn in enumerate(jaxpr.eqns):
        inner = [of_jaxpr(j) for v in eqn.params.values() for j in inner_jaxprs(v)]
        for v in eqn.outvars:
            size = _bytes(v.aval)
            alive += size
            end = last.get(v, i)
            ends[end] = ends.get(end, 0) + size
        most = max(most, alive + max(inner, default=0))
        alive -= ends.pop(i, 0)
    return most


def _bytes(aval: Any) -> int:
    return int(aval.size) * aval.dtype.itemsize if hasattr(aval, 'dtype') else 0
