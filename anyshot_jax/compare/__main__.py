"""python -m anyshot_jax.compare"""

import os

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')

from anyshot_jax.compare import cli

cli()
