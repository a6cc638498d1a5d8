"""For which kind of device programs are written.

Some sums have one form that a CPU is fast with and another for accelerators. Which one is traced is
decided here and nowhere else, so that a program can also be written for a machine that isn't there.
"""

import contextlib
import contextvars
from collections.abc import Iterator

import jax

_PLATFORM: contextvars.ContextVar[str] = contextvars.ContextVar('platform', default='')


def platform() -> str:
    """'cpu', 'gpu' or 'tpu': of JAX's own devices, unless inside of `written_for`."""
    return _PLATFORM.get() or jax.default_backend()


def on_cpu() -> bool:
    """True if the forms for CPUs are wanted; those for accelerators otherwise."""
    return platform() == 'cpu'


@contextlib.contextmanager
def written_for(name: str) -> Iterator[None]:
    """Programs traced inside are written for that platform, wherever they are traced.

    What was traced before is forgotten, at the end too: JAX takes a trace for one of any platform.
    """
    jax.clear_caches()
    token = _PLATFORM.set(name)
    try:
        yield
    finally:
        _PLATFORM.reset(token)
        jax.clear_caches()
