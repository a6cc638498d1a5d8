"""python -m anyshot_jax.main --config=configs/quickstart.py [--config.field=value ...]

Trains, evaluates and reports what the config says; the same command goes on after a stop.
"""

import os
import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from anyshot_jax.types import InputError

_CONFIG = config_flags.DEFINE_config_file(
    'config',
    None,
    'Path of the config file, and its fields as --config.field=value.',
    lock_config=True,
)
_WORKDIR = flags.DEFINE_string('workdir', '', 'Where everything goes. Default: runs/<config name>.')
_OURS = 'anyshot_jax.types.InputError: '


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise InputError(f'{argv[1:]} are no flags; write --config.field=value')
    from anyshot_jax import train  # JAX starts here, after the flags are known to be right

    logging.set_verbosity(logging.WARNING)
    train.keep_compiled()
    given = config_flags.get_config_filename(flags.FLAGS['config'])
    path, *variant = given.split(':')
    name = '_'.join([Path(path).stem, *variant])
    train.run(_CONFIG.value, _WORKDIR.value or Path('runs') / name, config_file=given)


def _parse(argv: list[str]) -> list[str]:
    """absl's parser; a wrong config file or field becomes one line that says what to do."""
    try:
        left = flags.FLAGS(argv)
        if flags.FLAGS['config'].value is None:
            raise InputError('--config=<file> is missing; configs/quickstart.py needs nothing else')
        return left
    except flags.Error as e:
        # config_flags puts the whole traceback of a failing config file into its message.
        raise InputError(str(e).strip().splitlines()[-1].removeprefix(_OURS)) from e
    except (
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
        OSError,
        SyntaxError,
        ImportError,
    ) as e:
        raise InputError(_flag_error(argv, e)) from e


def _flag_error(argv: list[str], error: Exception) -> str:
    from anyshot_jax.config import flag_names, nearest

    if isinstance(error, InputError):
        return str(error)
    known = flag_names(flags.FLAGS['config'].value) if flags.FLAGS['config'].value else []
    for arg in argv[1:]:
        name = arg.lstrip('-').split('=')[0]
        if known and name.startswith('config.') and name not in known:
            return f'unknown field {name}{nearest(name, known)}'
    return f'--config could not be read: {error}'


def cli() -> None:
    """Entry point: bad input ends in one line on stderr and exit code 2."""
    try:
        app.run(main, flags_parser=_parse)
    except InputError as e:
        print(f'error: {e}', file=sys.stderr)
        sys.exit(2)


if __name__ == '__main__':
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    cli()
