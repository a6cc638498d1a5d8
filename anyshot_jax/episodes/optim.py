"""From config.optim to an optax chain."""

import jax
import optax
from ml_collections import ConfigDict

from anyshot_jax.types import InputError

# Of config.optim, what may differ between members of one program, by the rule that uses it.
TRACED = {
    'sgd': ('learning_rate', 'weight_decay', 'clip_norm', 'momentum'),
    'adam': ('learning_rate', 'weight_decay', 'clip_norm', 'b1', 'b2'),
    'adamw': ('learning_rate', 'weight_decay', 'clip_norm', 'b1', 'b2'),
}
OFF_AT_0 = ('clip_norm', 'momentum')  # another program than with any other number


def _on(number) -> bool:
    """True unless it is 0; a traced number never is (OFF_AT_0)."""
    return isinstance(number, jax.core.Tracer) or bool(number)


def schedule(optim: ConfigDict, num_steps: int) -> optax.Schedule:
    """Learning rate by step: warmup from 0, then constant, cosine or linear to 0, or halved."""
    rate, warmup = optim.learning_rate, optim.warmup_steps
    if optim.schedule == 'constant':
        after = optax.constant_schedule(rate)
    elif optim.schedule == 'cosine':
        after = optax.cosine_decay_schedule(rate, max(num_steps - warmup, 1))
    elif optim.schedule == 'linear':
        after = optax.linear_schedule(rate, 0.0, max(num_steps - warmup, 1))
    elif optim.schedule == 'halve':
        after = optax.exponential_decay(rate, optim.halve_every, 0.5, staircase=True)
    else:
        raise InputError(
            'config.optim.schedule must be constant, cosine, linear or halve, '
            f'got {optim.schedule!r}'
        )
    if not warmup:
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, rate, warmup), after], [warmup])


def build_optimizer(optim: ConfigDict, num_steps: int) -> optax.GradientTransformation:
    """Clipping, the rule, decay of kernels only, and subtrees that stay frozen.

    Raises:
      InputError: an unknown rule or schedule; at init, a name in frozen or layer_rates that no
        parameter has.
    """
    rate = schedule(optim, num_steps)
    if optim.name == 'sgd':
        rule = optax.sgd(rate, momentum=optim.momentum if _on(optim.momentum) else None)
        rule = optax.chain(_decay(optim), rule)
    elif optim.name in ('adam', 'adamw'):
        # adam: decay as L2 in the gradient; adamw: decoupled (Loshchilov & Hutter 2019).
        rule = optax.scale_by_adam(optim.b1, optim.b2)
        parts = [_decay(optim), rule] if optim.name == 'adam' else [rule, _decay(optim)]
        rule = optax.chain(*parts, optax.scale_by_learning_rate(rate))
    else:
        raise InputError(f'config.optim.name must be adam, adamw or sgd, got {optim.name!r}')
    if _on(optim.clip_norm):
        rule = optax.chain(optax.clip_by_global_norm(optim.clip_norm), rule)
    if optim.layer_rates:
        rule = optax.chain(rule, _scaled(tuple(optim.layer_rates)))
    if not optim.frozen:
        return rule
    label = lambda params: _label(params, tuple(optim.frozen))
    return optax.partition({'train': rule, 'frozen': optax.set_to_zero()}, label)


def _decay(optim: ConfigDict) -> optax.GradientTransformation:
    kernels = lambda params: jax.tree.map(lambda p: p.ndim > 1, params)
    return optax.add_decayed_weights(optim.weight_decay, mask=kernels)


def _scaled(layer_rates: tuple[tuple[str, float], ...]) -> optax.GradientTransformation:
    """The steps of named subtrees times a factor: layers with learning rates of their own."""
    factors = dict(layer_rates)

    def factor(path) -> float:
        return next((factors[k] for k in _keys(path) if k in factors), 1.0)

    def init(params):
        names = {k for path, _ in jax.tree_util.tree_leaves_with_path(params) for k in _keys(path)}
        if missing := set(factors) - names:
            raise InputError(
                f'config.optim.layer_rates names {sorted(missing)}; parameters: {sorted(names)}'
            )
        return optax.EmptyState()

    def update(updates, state, params=None):
        scale = lambda path, u: u * factor(path)
        return jax.tree_util.tree_map_with_path(scale, updates), state

    return optax.GradientTransformation(init, update)


def _keys(path) -> list[str]:
    """The names on the way to a parameter, the outermost first."""
    return [str(getattr(k, 'key', k)) for k in path]


def _label(params, frozen: tuple[str, ...]):
    names = set()

    def one(path, _):
        names.update(_keys(path))
        return 'frozen' if set(_keys(path)) & set(frozen) else 'train'

    labels = jax.tree_util.tree_map_with_path(one, params)
    if missing := set(frozen) - names:
        raise InputError(
            f'config.optim.frozen names {sorted(missing)}; parameters: {sorted(names)}'
        )
    return labels
