"""Floating-point operations of a traced program, from shapes.

XLA's own count of a compiled program takes the body of a loop once, however often it runs, and
doesn't see into what it hands to a library.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import Var


def count(function: Callable, *args: Any) -> float:
    """Operations in the matrix products and convolutions of a call, over all devices.

    A product and a sum are two. A scan counts as often as it runs, a while loop of unknown length
    once, of branches the dearest; zeros that pad a convolution count as items. What nothing uses
    doesn't count: the compiler leaves it out.
    """
    return of_jaxpr(jax.make_jaxpr(function)(*args).jaxpr)


def of_jaxpr(jaxpr: Any) -> float:
    """`count` of a program that is traced already."""
    total = 0.0
    used = {v for v in jaxpr.outvars if isinstance(v, Var)}
    for eqn in reversed(jaxpr.eqns):
        if not eqn.effects and used.isdisjoint(eqn.outvars):
            continue
        used.update(v for v in eqn.invars if isinstance(v, Var))
        name, params = eqn.primitive.name, eqn.params
        out = math.prod(eqn.outvars[0].aval.shape) if eqn.outvars else 0
        if name == 'dot_general':
            (contract, _), _ = params['dimension_numbers']
            total += 2 * out * math.prod(eqn.invars[0].aval.shape[i] for i in contract)
        elif name == 'conv_general_dilated':
            kernel, numbers = eqn.invars[1].aval.shape, params['dimension_numbers']
            # Of the taps on an input spread out by zeros (a stride's derivative) few are on items.
            spread = math.prod(params['lhs_dilation'])
            total += 2 * out * math.prod(kernel) / kernel[numbers.rhs_spec[0]] / spread
        inner = [of_jaxpr(j) for v in params.values() for j in inner_jaxprs(v)]
        if name == 'cond':
            total += max(inner)
        elif name == 'shard_map':  # shapes inside are those of one device
            total += params['mesh'].size * sum(inner)
        else:
            total += params['length'] * sum(inner) if name == 'scan' else sum(inner)
    return total


def inner_jaxprs(value: Any) -> list[Any]:
    """The programs that a parameter of an equation holds: a loop's body, branches."""
    if isinstance(value, (tuple, list)):
        return [j for v in value for j in inner_jaxprs(v)]
    value = getattr(value, 'jaxpr', value)  # a ClosedJaxpr holds one
    return [value] if hasattr(value, 'eqns') else []
