"""Progress that people see: bars on a terminal and in notebooks, lines in logs."""

import sys
from typing import Any

from tqdm import tqdm
from tqdm.auto import tqdm as any_tqdm


def in_notebook() -> bool:
    """True in a Jupyter kernel: its stderr is no terminal, yet a bar moves."""
    shell = sys.modules.get('IPython')
    kernel = shell.get_ipython() if shell else None
    return kernel is not None and 'IPKernelApp' in getattr(kernel, 'config', {})


def moves() -> bool:
    """True where bars are drawn: on a terminal or in a notebook."""
    return sys.stderr.isatty() or in_notebook()


def bar(*args: Any, hidden: bool = False, **kwargs: Any) -> tqdm:
    """A tqdm bar that is drawn where it moves; arguments as tqdm has them."""
    kind = any_tqdm if in_notebook() else tqdm
    return kind(*args, disable=hidden or not moves(), **kwargs)


def say(line: str) -> None:
    """A line on stderr, above a bar if one is drawn."""
    tqdm.write(line, file=sys.stderr)
    sys.stderr.flush()
