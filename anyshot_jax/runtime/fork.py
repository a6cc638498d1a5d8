"""JAX's threads don't outlive a fork: a child that computes by them would wait for ever."""

import os

_started = False  # this process has computed by JAX
_lost = False  # its parent had


def started() -> None:
    """Says that from here on a forked child can't compute."""
    global _started
    _started = True


def _in_child() -> None:
    global _lost
    _lost = _lost or _started


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_in_child)


def check() -> None:
    """Refuses (RuntimeError) to compute in the child of a process that already has."""
    if _lost:
        raise RuntimeError(
            'this process was forked from one that had used JAX, whose threads it lacks: fork '
            "before the first use (gunicorn without --preload), or start it by 'spawn' "
            "(multiprocessing.get_context('spawn'))"
        )
