"""Subject of a run's page."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from anyshot_jax.report.probe import Pool
from anyshot_jax.types import Array, Data, Method, TrainState


class Subject(NamedTuple):
    """Argument of `parts` in every report/<name>.py, which a method's file names as REPORT."""

    workdir: Path
    method: Method
    state: TrainState  # on one device
    data: Data
    config: ConfigDict
    images: Array | None  # [N, H, W, C] of the test items, where those are features of them
    web: Array | None  # as `images`, of the role web
    rng: np.random.Generator
    pool: Pool | None  # the test classes that tasks can be drawn from
