"""Many runs of one recipe, trained by one program: its members.

config.num_seeds=8 trains the seeds `seed`, `seed` + 1, ...; with
config.vary=(('method.inner_lr', (0.1, 0.4)), ...) each of them under every combination of those
values. A member's numbers are those of the same run alone, to float tolerance. A run of one seed is
a population of one.
"""

import contextlib
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from anyshot_jax import config as configs
from anyshot_jax.episodes import optim
from anyshot_jax.episodes.update import chunk_size
from anyshot_jax.types import Array, Data, InputError, Method, nearest

MAX_MEMBERS = 10_000
PHASES = ('init', 'step', 'val', 'test')


class Member(NamedTuple):
    """One run of a population."""

    seed: int
    setting: Mapping[str, float]  # of the fields that vary, such as {'method.inner_lr': 0.4}

    def __str__(self) -> str:
        return ', '.join([f'seed {self.seed}', *(f'{k}={v:g}' for k, v in self.setting.items())])

    def config(self, config: ConfigDict) -> ConfigDict:
        """Config that runs this member alone."""
        return _assigned(config, {'seed': self.seed, 'num_seeds': 1, 'vary': (), **self.setting})


class Population(NamedTuple):
    """Members side by side: the leading axis M of their states, keys and values."""

    members: tuple[Member, ...]
    method: Callable[[Mapping[str, Array]], Method]  # of a setting's values, which may be traced
    methods: tuple[Method, ...]  # of every member
    keys: Mapping[str, Array]  # of PHASES -> [M]
    values: Mapping[str, Array]  # of the fields that vary -> [M] float32
    chunk: int  # members that are computed at once

    def init(self, data) -> Any:
        """States [M, ...]."""
        one = lambda key, values: self.method(values).init(key, data)
        with self.told_what_can_not_vary():
            return self.each(one, self.keys['init'], self.values)

    def each(self, function: Callable, *args: Any) -> Any:
        """function(member's share of args) of all, stacked; a population of one has no loop."""
        if len(self.members) == 1:
            result = function(*jax.tree.map(lambda a: a[0], args))
            return jax.tree.map(lambda a: a[None], result)
        if self.chunk == len(self.members):
            return jax.vmap(function)(*args)
        size = self.chunk if self.chunk > 1 else None  # else a vmap over one
        return jax.lax.map(lambda share: function(*share), args, batch_size=size)

    @contextlib.contextmanager
    def told_what_can_not_vary(self):
        """Turns JAX's error about a traced value that needs to be a plain number into ours."""
        try:
            yield
        except jax.errors.JAXTypeError as e:
            if not self.values:
                raise
            raise InputError(
                f'config.vary: the method decides in Python by one of {", ".join(self.values)}: '
                'take it out of the TRACED of its file, and vary it with python -m '
                'anyshot_jax.sweep'
            ) from e


def build(config: ConfigDict, data: Data) -> Population:
    """The population that a config asks for.

    Args:
      data: as the loaders give it, on the host: what methods check and measure when they are built.
    Raises:
      InputError: as `members`, or of the method.
    """
    every_member = members(config)
    build_method = configs.find('methods', config.method.name).build
    made = {}  # one for all seeds of a setting: they share its compiled programs
    for member in every_member:
        setting = tuple(member.setting.values())
        if setting not in made:
            made[setting] = build_method(member.config(config), data)
    alike = made[()] if not config.vary else None
    keys = [jax.random.split(jax.random.key(m.seed), len(PHASES)) for m in every_member]
    return Population(
        members=every_member,
        method=lambda values: alike or build_method(_assigned(config, values), data),
        methods=tuple(made[tuple(m.setting.values())] for m in every_member),
        keys=dict(zip(PHASES, jnp.stack(keys, 1), strict=True)),
        values={
            path: jnp.asarray([m.setting[path] for m in every_member], jnp.float32)
            for path, _ in config.vary
        },
        chunk=chunk_size(len(every_member), config.member_chunk),
    )


def members(config: ConfigDict) -> tuple[Member, ...]:
    """Every seed of every setting, setting by setting.

    Raises:
      InputError: fewer than one seed, more than MAX_MEMBERS, a field that can't vary (named), or a
        run that can't be one of several.
    """
    if config.num_seeds < 1:
        raise InputError(f'config.num_seeds={config.num_seeds} must be >= 1')
    try:
        varied = [(str(path), tuple(map(float, values))) for path, values in config.vary]
        if any(isinstance(values, str) for _, values in config.vary):
            raise TypeError('text')
    except (TypeError, ValueError) as e:
        raise InputError(
            f"config.vary={config.vary!r} must be pairs, like (('method.inner_lr', (0.1, 0.4)),)"
        ) from e
    for path, values in varied:
        _check_field(config, path, values)
    if len({path for path, _ in varied}) < len(varied):
        raise InputError('config.vary names a field twice')
    count = config.num_seeds * math.prod(len(values) for _, values in varied)
    if count > MAX_MEMBERS:
        raise InputError(
            f'config.num_seeds and config.vary make {count:,} members, more than {MAX_MEMBERS:,}'
        )
    settings = itertools.product(*(values for _, values in varied))
    everyone = tuple(
        Member(config.seed + i, dict(zip([path for path, _ in varied], setting, strict=True)))
        for setting in settings
        for i in range(config.num_seeds)
    )
    if len(everyone) > 1:
        if not config.num_steps:
            raise InputError(
                'config.num_seeds and config.vary are for training, but config.num_steps=0'
            )
        method = configs.find('methods', config.method.name)
        if config.residual.encoder or getattr(method, 'DRAWS_WHEN_BUILT', False):
            raise InputError(
                'config.num_seeds: the seed also draws what is made before training (residuals, a '
                'memory bank); run the seeds one by one, with python -m anyshot_jax.sweep'
            )
    return everyone


def _check_field(config: ConfigDict, path: str, values: tuple[float, ...]) -> None:
    can = traced(config)
    if path not in can:
        raise InputError(
            f'config.vary: {path!r} cannot vary within one program{nearest(path, can)}; '
            f'these can: {", ".join(can)}; every field can with python -m anyshot_jax.sweep'
        )
    if path.removeprefix('optim.') in optim.OFF_AT_0 and 0 in values and len(values) > 1:
        raise InputError(
            f'config.vary: {path} = 0 switches it off, which is another program than '
            f'{max(values):g}; run it on its own'
        )
    if not values or not np.isfinite(values).all() or len(set(values)) < len(values):
        raise InputError(f'config.vary: {path!r} needs finite and different values, got {values}')


def traced(config: ConfigDict) -> tuple[str, ...]:
    """The fields that may vary within one program: TRACED of the method's file and of the rule.

    A program only computes with them; by every other field it may be another one.
    """
    method = configs.find('methods', config.method.name)
    own = getattr(method, 'TRACED', ())
    rule = optim.TRACED.get(config.optim.name, ())
    return *(f'method.{name}' for name in own), *(f'optim.{name}' for name in rule)


def _assigned(config: ConfigDict, fields: Mapping[str, Any]) -> ConfigDict:
    """A copy with those fields, 'method.inner_lr' and the like; also with traced values."""
    copy = config.copy_and_resolve_references()
    with copy.unlocked(), copy.ignore_type():
        for path, value in fields.items():
            *sections, name = path.split('.')
            part = copy
            for section in sections:
                part = part[section]
            part[name] = value
    return copy


@jax.jit
def take(states: Any, index: int) -> Any:
    """The state of one member."""
    return jax.tree.map(lambda a: a[index], states)


@jax.jit
def where(chosen: Array, new: Any, old: Any) -> Any:
    """`new` for the members that are chosen [M], else `old`."""
    return jax.tree.map(
        lambda a, b: jnp.where(chosen.reshape(-1, *[1] * (a.ndim - 1)), a, b), new, old
    )
