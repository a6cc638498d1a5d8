"""python -m anyshot_jax.predict"""

import os

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')

from anyshot_jax.predict import cli

cli()
