"""Progress of every member of a run: its best validation, and whether it has diverged."""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict


@dataclasses.dataclass
class Progress:
    """Record that a checkpoint keeps besides the states; arrays [M] in the order of the members."""

    sign: int  # 1: the larger a validation's value the better, else -1
    best: np.ndarray  # value of the best validation
    best_step: np.ndarray  # 0: there was none
    stale: np.ndarray  # validations since the best
    diverged: np.ndarray  # step at which something became NaN or infinite; 0: nothing did
    seconds: float = 0.0  # of training
    _ticked: float = dataclasses.field(default_factory=time.monotonic, repr=False)

    @classmethod
    def resumed(
        cls, num: int, sign: int, record: dict[str, Any], best: dict[str, Any] | None = None
    ) -> 'Progress':
        """From the beginning, or from what a checkpoint's record had.

        Args:
          num: members. best: the record of the best steps' checkpoint, where that is what counts:
            it may be ahead of the newest one, of which it takes who has diverged.
        """
        if best:
            later, progress = cls.resumed(num, sign, record), cls.resumed(num, sign, best)
            progress.diverged = np.maximum(progress.diverged, later.diverged)
            return progress
        zeros = np.zeros(num, np.int64)
        fresh = {'best': np.full(num, -sign * np.inf), **dict.fromkeys(NAMES[1:], zeros)}
        arrays: Any = {n: np.asarray(record.get(n, fresh[n]), fresh[n].dtype) for n in NAMES}
        return cls(sign, seconds=record.get('seconds', 0.0), **arrays)

    def tick(self) -> None:
        """Counts the seconds since the last tick, or since this object was made."""
        now = time.monotonic()
        self.seconds += now - self._ticked
        self._ticked = now

    def record(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {n: getattr(self, n).tolist() for n in NAMES} | {'seconds': self.seconds}

    def ended(self, config: ConfigDict) -> np.ndarray:
        """True for every member that needs no more steps; bool [M]."""
        reached = (config.stop_at > 0) & (self.sign * (self.best - config.stop_at) >= 0)
        waited = (config.early_stop > 0) & (self.stale >= config.early_stop)
        return reached | waited | (self.diverged > 0)

    def score(self) -> np.ndarray:
        """[M], the larger the better; the least of all where a member has diverged."""
        return np.where(self.diverged > 0, -np.inf, self.sign * self.best)

    def best_member(self, among: Sequence[int] = ()) -> int:
        """The member whose best validation is the best; one that has diverged only if all have.

        Args:
          among: these members only, or all.
        """
        those = np.array(among or range(len(self.best)))
        alive = those[self.diverged[those] == 0]
        those = alive if len(alive) else those
        return int(those[np.argmax(self.score()[those])])

    def validated(self, step: int, values: np.ndarray, config: ConfigDict) -> np.ndarray:
        """Takes a validation's values [M]; says of which members it is the best yet, bool [M].

        A member that has ended keeps the best that it had, as it would alone.
        """
        going = ~self.ended(config)
        better = going & (self.sign * (values - self.best) > 0)
        self.best = np.where(better, values, self.best)
        self.best_step = np.where(better, step, self.best_step)
        self.stale = np.where(better, 0, self.stale + going)
        return better

    def note_metrics(self, metrics: dict[str, np.ndarray], last: int) -> dict[int, str]:
        """Takes metrics [M, K] of the steps up to `last`; says which members diverged, and how."""
        finite = np.all([np.isfinite(m) for m in metrics.values()], axis=0)
        first = last - finite.shape[1] + 1
        at = np.where(finite.all(1), 0, first + np.argmin(finite, 1))
        names = lambda i: [n for n, m in metrics.items() if not np.isfinite(m[i, at[i] - first])]
        return {
            i: f'{", ".join(names(i))} became NaN or infinite at step {at[i]} '
            f'(steps {first} to {last})'
            for i in self._note(at)
        }

    def note_state(self, state: Any, last: int) -> dict[int, str]:
        """The last step's own damage, which its metrics can't show yet."""
        leaves = jax.tree.leaves((state.params, state.extra))
        finite = [np.isfinite(a).reshape(len(a), -1).all(1) for a in leaves]
        at = np.where(np.all(finite, axis=0), 0, last)
        return dict.fromkeys(
            self._note(at), f'the parameters became NaN or infinite by step {last}'
        )

    def _note(self, at: np.ndarray) -> list[int]:
        new = (at > 0) & (self.diverged == 0)
        self.diverged = np.where(new, at, self.diverged)
        return np.flatnonzero(new).tolist()


NAMES = ('best', 'best_step', 'stale', 'diverged')
