"""Location of a dataset: config.data.dir, else the folder of its name under ANYSHOT_DATA_DIR."""

from pathlib import Path

from anyshot_jax.storage.folders import data_root, user_path
from anyshot_jax.types import InputError


def find_dir(given: str, name: str, layout: str) -> Path:
    """The directory (or file) of dataset `name`, which exists.

    Args:
      given: config.data.dir; '' looks into $ANYSHOT_DATA_DIR/<name>.
      layout: what should lie there, for the error message.
    Raises:
      InputError: it isn't there; says what to set and what is expected.
    """
    root = data_root()
    hint = (
        f'set --config.data.dir=FOLDER, or the environment variable ANYSHOT_DATA_DIR to the parent '
        f'of {name!r}; expected there: {layout}'
    )
    if given:
        path = user_path(given)
    elif root:
        path = root / name
    else:
        raise InputError(f'no directory given for the data {name!r}: {hint}')
    if not path.exists():
        raise InputError(f'the data {name!r} are not at {path}: {hint}')
    return path
