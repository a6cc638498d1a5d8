"""A run's recipe as a file, and its checkpoints as a restart reads them."""

import contextlib

import jax
import jax.numpy as jnp

from anyshot_jax import config as configs
from anyshot_jax.training import checkpoint


def recipe(file, config):
    """Writes a config file for main.py that gives a tiny config on an MLP's features."""
    file.write_text(
        'from anyshot_jax.config import defaults\n'
        'def get_config(arg=""):\n'
        '    config = defaults("protonet", "synthetic", "mlp")\n'
        f'    config.update({config.to_dict()!r})\n'
        '    return config\n'
    )
    return file


def state_in(workdir, config, name='checkpoints', members=1):
    """The newest states [members, ...] in a workdir."""
    config = configs.check(config)
    data = configs.find('data', config.data.name).load(config.data)
    method = configs.find('methods', config.method.name).build(config, data)
    empty = jax.jit(method.init)(jax.random.key(0), jax.device_put(data))
    empty = jax.tree.map(lambda a: jnp.stack([a] * members), empty)
    with contextlib.closing(checkpoint.open_manager(workdir / name, keep=9)) as manager:
        assert list(manager.all_steps()), f'{workdir / name} is empty'
        return checkpoint.restore_or_init(manager, empty)[0]
