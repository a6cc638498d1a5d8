"""Folders of the user: where data sets lie, where caches are kept."""

import os
from pathlib import Path


def data_root() -> Path | None:
    """The folder that ANYSHOT_DATA_DIR names, if it does."""
    root = os.environ.get('ANYSHOT_DATA_DIR', '')
    return Path(root).expanduser() if root else None


def cache_dir() -> Path:
    """$XDG_CACHE_HOME/anyshot_jax, else ~/.cache/anyshot_jax; may not exist yet."""
    home = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(home) / 'anyshot_jax'
