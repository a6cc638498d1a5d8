"""Sine waves to regress on: the toy problem of the MAML paper (Finn et al. 2017, section 5.1)."""

from ml_collections import ConfigDict

from anyshot_jax.types import Data, InputError, Sinusoids

DEFAULTS = {'amplitude': (0.1, 5.0), 'phase': (0.0, 3.141592653589793), 'x': (-5.0, 5.0)}


def load(config: ConfigDict) -> Data:
    """The same distribution for all roles: every task is a new wave, so none is seen twice.

    Raises:
      InputError: names the field whose range is empty.
    """
    ranges = {name: tuple(float(v) for v in config[name]) for name in DEFAULTS}
    for name, given in ranges.items():
        if len(given) != 2 or not given[0] < given[1]:
            raise InputError(f'config.data.{name} = {config[name]}: need (from, to), from < to')
    return Data(functions={role: Sinusoids(**ranges) for role in ('train', 'val', 'test')})
