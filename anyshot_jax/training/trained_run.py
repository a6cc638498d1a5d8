"""A trained run in Python: config, parameters, results, history, and its net on one's images."""

import contextlib
import json
from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from anyshot_jax.episodes.episodic import EMBED_CHUNK
from anyshot_jax.runtime.devices import map_rows
from anyshot_jax.storage import files
from anyshot_jax.training.workdir import Trained, load
from anyshot_jax.types import Array, Episode, InputError, Method, TrainState


class TrainedRun:
    """A run and what it has made: `anyshot_jax.load(workdir)`, and what `loop.run` returns.

    run = anyshot_jax.load('runs/mine')
    run.embed(x), run.predict(episode), run.params, run.config, run.result, run.history

    Config, method and state are read when they are first asked for.
    """

    def __init__(self, workdir: str | Path, means: Mapping[str, float] | None = None):
        self.workdir = files.folder(workdir)
        self._means = means

    def __repr__(self) -> str:
        return f'TrainedRun({str(self.workdir)!r})'

    @cached_property
    def _trained(self) -> Trained:
        return load(self.workdir)

    @property
    def means(self) -> dict[str, float]:
        """The mean of each value on the test; {} where the run has none yet."""
        if self._means is not None:
            return dict(self._means)
        return {name: v['mean'] for name, v in self.result.get('values', {}).items()}

    @property
    def result(self) -> dict[str, Any]:
        """result.json: values with intervals, step, seconds, versions; {} where there is none."""
        return files.read_json(self.workdir / 'result.json') or {}

    @property
    def history(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl by step; `kind` is train or val."""
        path, lines = self.workdir / 'metrics.jsonl', []
        if path.exists():
            for line in files.read_whole(path, files.MAX_LOG).decode(errors='replace').splitlines():
                with contextlib.suppress(json.JSONDecodeError):  # a kill may have cut the last one
                    lines.append(json.loads(line))
        return lines

    @property
    def config(self) -> ConfigDict:
        """Config of the member that is best on validation, if the run is a population."""
        return self._trained.config

    @property
    def method(self) -> Method:
        """Its functions are pure: method.predict(run.state, episode)."""
        return self._trained.method

    @property
    def state(self) -> TrainState:
        """State of the step that is best on validation."""
        return self._trained.state

    @property
    def params(self) -> Any:
        """The parameters in `state`."""
        return self.state.params

    @cached_property
    def _embed(self):
        return jax.jit(self.method.embed) if self.method.embed else None

    @cached_property
    def _predict(self):
        return jax.jit(self.method.predict) if self.method.predict else None

    def embed(self, x: Array) -> Array:
        """[N, D] float embeddings of items [N, ...] as the run's data have them.

        Raises:
          InputError: the method embeds no single items, or these are of another shape.
        """
        if self._embed is None:
            raise InputError(f'{self.config.method.name} has no embedding of single items')
        return embed_in_chunks(partial(self._embed, self.state), x)

    def predict(self, episode: Episode) -> Array:
        """Scores [W*Q, W] of an episode's queries, the largest is the answer.

        Raises:
          InputError: the method answers no episodes.
        """
        if self._predict is None:
            raise InputError(f'{self.config.method.name} answers no episodes')
        return np.asarray(self._predict(self.state, episode))


def embed_in_chunks(embed, x: Array) -> Array:
    """[N, D] of any number of items, in one compiled shape."""
    x = np.asarray(x)
    if x.ndim < 2 or not len(x):
        raise InputError(f'embed takes items [N, ...], got {x.shape}')
    return np.asarray(map_rows(embed, x, size=EMBED_CHUNK))
