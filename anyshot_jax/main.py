"""python -m anyshot_jax.main --config=configs/quickstart.py [--config.field=value ...]

Trains, evaluates and reports what the config says; the same command goes on after a stop. With
--config=... --help lists the variants and fields of that recipe.
"""

import os
import re
import sys
from pathlib import Path

from absl import flags, logging
from ml_collections import config_flags

from anyshot_jax import command
from anyshot_jax import config as configs
from anyshot_jax.types import InputError

_CONFIG = config_flags.DEFINE_config_file(
    'config',
    None,
    'A recipe, by its path or its name (quickstart), and its fields as --config.field=value.',
    lock_config=True,
)
_WORKDIR = flags.DEFINE_string(
    'workdir', '', 'Where everything goes, also gs://... Default: runs/<config name>.'
)
_COORDINATOR = flags.DEFINE_string(
    'coordinator', '', 'HOST:PORT of the first of several processes. Slurm and TPU pods are found.'
)
_NUM_PROCESSES = flags.DEFINE_integer('num_processes', 0, 'With --coordinator: how many there are.')
_PROCESS_ID = flags.DEFINE_integer('process_id', -1, 'With --coordinator: which one this is.')
_DETERMINISTIC = flags.DEFINE_boolean(
    'deterministic', False, 'On a GPU: the same bits in every run, by kernels that may be slower.'
)
_RECIPE = re.compile(r'^(--?config=)(.+)$', re.DOTALL)
_HELP = ('--help', '-help', '-h', '--helpfull', '--helpshort')
_EXPECTED = {  # by what the parser says
    'invalid literal for int': 'a whole number',
    'could not convert string to float': 'a number',
    'Non-boolean argument': 'True or False',
}
_OURS = 'anyshot_jax.types.InputError: '


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise InputError(
            f'unexpected argument {argv[1]!r}; options are written --config.field=value'
        )
    # JAX starts here, after the flags are known to be right.
    from anyshot_jax.runtime import start
    from anyshot_jax.training import loop, processes

    logging.set_verbosity(logging.WARNING)
    start.end_with_parent()
    start.keep_compiled()
    if _DETERMINISTIC.value:
        start.same_bits()
    start.load_compilers(_CONFIG.value)
    processes.join(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    start.split_cpu(_CONFIG.value)
    configs.keep_asked(_CONFIG.value, config_flags.get_override_values(flags.FLAGS['config']))
    given = config_flags.get_config_filename(flags.FLAGS['config'])
    path, *variant = given.split(':')
    name = '_'.join([Path(path).stem, *variant])
    loop.run(_CONFIG.value, _WORKDIR.value or Path('runs') / name, config_file=given)


def _parse(argv: list[str]) -> list[str]:
    """absl's parser; a wrong config file or field becomes one line that says what to do."""
    argv = [_RECIPE.sub(lambda m: m[1] + configs.recipe_file(m[2]), arg) for arg in argv]
    helps = [arg for arg in argv if arg in _HELP]
    try:
        left = flags.FLAGS([arg for arg in argv if not _config_given(argv) or arg not in helps])
        config = flags.FLAGS['config'].value
        _ = config is None or 'seed' in config  # a file that could not be read says so only now
    except InputError:
        raise
    except Exception as e:  # a config file is a program: it may raise anything
        raise InputError(_flag_error(e)) from e
    if config is not None and helps:
        from anyshot_jax.config.listing import listing

        print(listing(config_flags.get_config_filename(flags.FLAGS['config']), config))
        sys.exit(0)
    if config is None:
        if _config_given(argv):
            raise InputError('get_config() of the config file returned None: return the config')
        raise InputError('--config=<file> is missing; configs/quickstart.py needs nothing else')
    return left


def _config_given(argv: list[str]) -> bool:
    return any(arg.lstrip('-').startswith('config=') for arg in argv[1:])


def _flag_error(error: Exception) -> str:
    """The line that matters of what config_flags raised, whose messages list every field."""
    text = str(error).replace('\\', '')
    for old, new in configs.RENAMED.items():
        if re.search(rf'\b{old.split(".")[1]}\b', text):
            return f'config.{old} is called config.{new} now'
    for words, expected in _EXPECTED.items():
        if (flag := re.match(r'flag (--\S+?)=', text)) and words in text:
            return f'{flag[1]} needs {expected}: {text.removeprefix("flag ").split(": ")[0]}'
    if meant := re.search(r'Did you mean "(\w+)" instead of "(\w+)"', text):
        return f"the config has no field '{meant[2]}'; did you mean '{meant[1]}'?"
    if unknown := re.search(r'Key "(\w+)" does not exist', text):
        return f"the config has no field '{unknown[1]}'"
    if isinstance(error, (KeyError, AttributeError)):
        return f'the config has no field {text}'
    return text.strip().splitlines()[-1].strip().removeprefix(_OURS)


def cli() -> None:
    """Entry point, see `command.run`."""
    logging.set_verbosity(logging.ERROR)  # what config_flags warns of becomes an error of ours
    command.run(main, _parse)


if __name__ == '__main__':
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    cli()
