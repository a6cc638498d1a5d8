"""From a loss to one optimiser step."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from anyshot_jax.runtime.devices import over_devices
from anyshot_jax.target import on_cpu
from anyshot_jax.types import TrainState


def gradient_update(
    loss: Callable, tx: optax.GradientTransformation, *, task_chunk: int = 0
) -> Callable:
    """The update of every method that follows the gradient of one loss.

    Args:
      loss: (params, extra, batch [B, ...], key [B]) -> (scalar, (metrics, extra)), a mean over the
        batch's units. tx: the optimiser.
      task_chunk: units differentiated at once. Their gradients are accumulated, so peak memory
        doesn't grow with the batch. 0: all at once on an accelerator, one at a time on a CPU, whose
        cache one unit fills.
    Returns:
      update(state, batch, key) -> (state, metrics), to run under the map of `runtime.devices`.
      metrics gains 'loss' and 'grad_norm'.
    """

    def gradient(state, batch, key):
        grad = jax.value_and_grad(loss, has_aux=True)
        (value, (metrics, extra)), grads = grad(state.params, state.extra, batch, key)
        return grads, extra, {**metrics, 'loss': value}

    def update(state: TrainState, batch, key):
        size = jax.tree.leaves(batch)[0].shape[0]
        chunk = chunk_size(size, task_chunk)
        if chunk == size:
            result = gradient(state, batch, key)
        else:
            chunks = jax.tree.map(
                lambda a: a.reshape(size // chunk, chunk, *a.shape[1:]), (batch, key)
            )
            shapes = jax.eval_shape(gradient, state, *jax.tree.map(lambda a: a[0], chunks))
            zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

            def add(total, one):
                return jax.tree.map(jnp.add, total, gradient(state, *one)), None

            total, _ = jax.lax.scan(add, zeros, chunks)
            result = jax.tree.map(lambda a: a / (size // chunk), total)
        grads, extra, metrics = over_devices(result)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics['grad_norm'] = optax.tree.norm(grads)
        return TrainState(state.step + 1, params, opt_state, extra), metrics

    return update


def chunk_size(size: int, task_chunk: int) -> int:
    """The largest divisor of `size` that is at most `task_chunk` (0: the backend's default)."""
    if task_chunk <= 0:
        task_chunk = 1 if on_cpu() else size
    return max(d for d in range(1, min(task_chunk, size) + 1) if size % d == 0)
