"""python -m anyshot_jax.serve"""

import os

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')

from anyshot_jax.serve import cli

cli()
