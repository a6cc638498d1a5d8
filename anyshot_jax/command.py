"""Parts that commands share: flag errors kept apart from bad input, which ends in one line."""

import sys
from collections.abc import Callable
from typing import Any

from absl import app, flags, logging

from anyshot_jax.types import InputError, printable


def parse(argv: list[str]) -> list[str]:
    """Parses flags with absl; a wrong one becomes an error of one line.

    Raises:
      InputError: a flag that isn't there, or a value of another kind.
    """
    try:
        return flags.FLAGS(argv)
    except flags.Error as e:
        raise InputError(' '.join(str(e).split())) from e


def without_control(record: Any) -> bool:
    """A filter of logging: names of files in warnings do nothing to a terminal."""
    record.msg, record.args = printable(record.getMessage()), ()
    return True


def run(main: Callable[[list[str]], Any], flags_parser: Callable = parse) -> None:
    """An entry point: bad input ends in one line on stderr and exit code 2."""
    logging.get_absl_logger().addFilter(without_control)
    try:
        app.run(main, flags_parser=flags_parser)
    except InputError as e:
        print(f'error: {e}', file=sys.stderr)
        sys.exit(2)
