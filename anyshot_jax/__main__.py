"""anyshot train|predict|serve|export|sweep ...: the commands of the package, by name.

`python -m anyshot_jax.main` and so on are the same commands.
"""

import importlib
import os
import sys

import anyshot_jax
from anyshot_jax.types import nearest

COMMANDS = {
    'train': ('main', 'trains, evaluates and reports what a recipe says'),
    'predict': ('predict', 'classifies the images of a folder into a table and a page'),
    'compare': (
        'compare',
        'says which encoder suits the images of a folder',
    ),
    'serve': ('serve', 'opens a local page to classify images and add classes'),
    'export': ('export', 'writes a fitted classifier as a program without this package'),
    'sweep': ('sweep.command', 'runs many trials of a recipe, with a leaderboard'),
}
USAGE = (
    f"""anyshot {anyshot_jax.__version__}

"""
    + '\n'.join(f'  anyshot {name:8} {does}' for name, (_, does) in COMMANDS.items())
    + """

Each has --help. The first to try, which needs no data: anyshot train --config=quickstart
"""
)


def cli() -> None:
    """Runs the command that the first argument names; 2 is the exit code where there is none."""
    name = sys.argv[1] if len(sys.argv) > 1 else '--help'
    if name in ('--help', '-h', 'help'):
        print(USAGE)
        return
    if name == '--version':
        print(anyshot_jax.__version__)
        return
    if name not in COMMANDS:
        print(f'error: no command {name!r}{nearest(name, COMMANDS)}', file=sys.stderr)
        sys.exit(2)
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    sys.argv = [f'anyshot {name}', *sys.argv[2:]]
    importlib.import_module(f'anyshot_jax.{COMMANDS[name][0]}').cli()


if __name__ == '__main__':
    cli()
