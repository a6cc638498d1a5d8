"""Gradient descent on one task that can itself be differentiated.

Finn, Abbeel, Levine, "Model-agnostic meta-learning for fast adaptation of deep networks", ICML
2017; Rajeswaran, Finn, Kakade, Levine, "Meta-learning with implicit gradients", NeurIPS 2019.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Adapted(NamedTuple):
    """Result of an inner loop."""

    params: Any
    aux: Any  # what the loss gave beside its value, before every step: leading axis steps
    after: Any  # what `after` gave of the parameters after every step, stacked, or None


def adapt(
    loss: Callable,
    params: Any,
    *,
    steps: int,
    lr: Any,
    per_step: bool = False,
    inputs: Any = None,
    first_order: bool = False,
    after: Callable | None = None,
    remat: bool = False,
    unroll: int | bool = 1,
) -> Adapted:
    """`steps` of gradient descent, p <- p - lr * dloss/dp, exact under any outer derivative.

    Only what is in `params` moves: to hold a body still, let the loss close over it.

    Args:
      loss: params -> (scalar, aux), or where `inputs` are given (params, input).
      lr: a number, or a tree like params whose leaves are numbers or shaped like the parameter
        (Meta-SGD). The outer derivative by lr is right, first order or not.
      per_step: the leaves of lr have a leading axis: one rate for every step (MAML++).
      inputs: arrays with a leading axis of steps, of which the loss is given each step's own.
      first_order: the inner gradient counts as a constant for the outer derivative (FOMAML).
      after: params -> any arrays, of the parameters after every step.
      remat: keep the parameters of every step only and compute the rest again for the outer
        derivative: memory hardly grows with steps, time by a third or so.
      unroll: as for jax.lax.scan; a single step is never a loop.
    """
    structure: Any = jax.tree.structure(params)
    if jax.tree.structure(lr) != structure:
        lr = jax.tree.map(lambda _: lr, params)
    for rate in jax.tree.leaves(lr) if per_step else ():
        if jnp.shape(rate)[:1] != (steps,):
            raise ValueError(f'lr has leaves {jnp.shape(rate)} for {steps} steps')

    def step(params, per_step_inputs):
        rates, input_ = per_step_inputs
        extra_args = () if inputs is None else (input_,)
        grads, aux = jax.grad(loss, has_aux=True)(params, *extra_args)
        if first_order:
            grads = jax.lax.stop_gradient(grads)
        moved = jax.tree.map(lambda p, g, r: p - r * g, params, grads, rates if per_step else lr)
        return moved, (aux, after(moved) if after else None)

    if steps == 1:
        unroll = 0  # wholly; 1 would leave a loop of one trip
    if remat:
        step = jax.checkpoint(step)
    per_step_inputs = (lr if per_step else None, inputs)
    params, outputs = jax.lax.scan(step, params, per_step_inputs, length=steps, unroll=unroll)
    return Adapted(params, *outputs)


@partial(jax.custom_vjp, nondiff_argnums=(0, 3, 4, 5, 6))
def adapt_implicit(
    loss: Callable, params: Any, args: Any, steps: int, lr: float, strength: float, cg_steps: int
) -> Any:
    """Descent on loss(p, *args) + strength / 2 |p - params|^2, differentiated at its end alone.

    The derivative of the minimum by `params` is (I + H / strength)^-1, H the Hessian of the loss
    there (Rajeswaran et al., lemma 1); `cg_steps` of conjugate gradient apply it. So memory doesn't
    depend on `steps`, and the gradient is as good as the minimum and the conjugate gradient are.

    Args:
      loss: (params, *args) -> scalar, twice differentiable in reverse mode; closes over no array.
      args: arrays of the task. No derivative flows to them.
      strength: the paper's lambda, > 0.
    Returns:
      The parameters at the end.
    """

    def step(_, p):
        grads = jax.grad(loss)(p, *args)
        return jax.tree.map(lambda p, g, a: p - lr * (g + strength * (p - a)), p, grads, params)

    return jax.lax.fori_loop(0, steps, step, params)


def _implicit_fwd(loss, params, args, steps, lr, strength, cg_steps):
    end = adapt_implicit(loss, params, args, steps, lr, strength, cg_steps)
    return end, (end, args)


def _implicit_bwd(loss, steps, lr, strength, cg_steps, res, cotangent):
    end, args = res
    # Reverse over reverse: the package's convolutions have no forward mode.
    _, hessian = jax.vjp(lambda p: jax.grad(loss)(p, *args), end)
    apply = lambda v: jax.tree.map(lambda v, h: v + h / strength, v, hessian(v)[0])
    return conjugate_gradient(apply, cotangent, steps=cg_steps), None


adapt_implicit.defvjp(_implicit_fwd, _implicit_bwd)


def conjugate_gradient(apply: Callable, b: Any, *, steps: int) -> Any:
    """x with apply(x) close to b, from x = 0 (Hestenes & Stiefel 1952).

    A negative curvature ends it at the last good x: far from a minimum `apply` need not be positive
    definite.

    Args:
      apply: a symmetric linear map of trees like b, best positive definite.
    """
    pairs = lambda a, b: zip(*map(jax.tree.leaves, (a, b)), strict=True)
    dot = lambda a, b: sum(jnp.vdot(x, y, precision='highest') for x, y in pairs(a, b))
    along = lambda a, s, b: jax.tree.map(lambda x, y: x + s * y, a, b)

    def step(_, carry):
        x, r, p, rr = carry
        ap = apply(p)
        curvature = dot(p, ap)
        go = (curvature > 0) & (rr > 0)
        alpha = jnp.where(go, rr / jnp.where(go, curvature, 1), 0)
        x, r = along(x, alpha, p), along(r, -alpha, ap)
        new = dot(r, r)
        p = along(r, jnp.where(go, new / jnp.where(go, rr, 1), 0), p)
        return x, r, p, jnp.where(go, new, 0)

    zeros = jax.tree.map(jnp.zeros_like, b)
    return jax.lax.fori_loop(0, steps, step, (zeros, b, b, dot(b, b)))[0]
