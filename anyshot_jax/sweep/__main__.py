"""python -m anyshot_jax.sweep"""

import os

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')

from anyshot_jax.sweep.command import cli

cli()
