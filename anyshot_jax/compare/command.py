"""python -m anyshot_jax.compare --support=DIR [--encoders=a,b+stride16,...] [--out=OUT]

Says which encoder and which head to take for the images of a folder <class>/<image>, and what more
images would bring; with --out, OUT/report.html too.
"""

import contextlib

from absl import flags, logging

from anyshot_jax import command
from anyshot_jax.storage.folders import user_path
from anyshot_jax.types import InputError


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise InputError(f'{argv[1:]} are no flags; write --support=DIR and so on')
    support, out = flags.FLAGS['support'].value, flags.FLAGS['out'].value
    if not support:
        raise InputError('--support=DIR is missing: a folder <class>/<image>')
    report = user_path(out) / 'report.html' if out else None
    if report and report.exists() and not flags.FLAGS['overwrite'].value:
        raise InputError(f'{report} is there already: take another --out, or --overwrite')
    try:
        # JAX starts here, after the flags are known to be right.
        from anyshot_jax.compare.comparison import compare
        from anyshot_jax.compare.folder import labelled
        from anyshot_jax.compare.page import page
        from anyshot_jax.runtime import start
        from anyshot_jax.storage.files import write_text
        from anyshot_jax.storage.lock import Lock
    except ImportError as e:
        raise InputError(str(e)) from e
    logging.set_verbosity(logging.WARNING)
    start.keep_compiled()
    busy = f'another call is writing into {out}: give another --out'
    # Before hours of work: it is seen now that nothing can be written there.
    with Lock(report.parent / '.lock', busy) if report else contextlib.nullcontext():
        root = user_path(support)
        paths, labels, skipped = labelled(root, skip=flags.FLAGS['on_error'].value == 'skip')
        encoders: list[str] = flags.FLAGS['encoders'].value or []
        found = compare(
            paths, labels, encoders, seen=lambda which: print(f'{which} ...', flush=True)
        )
        print(f'\n{found.table()}\n\n{found.advice()}\n\n{found.best().line}')
        if skipped:
            print(f'{skipped} files could not be read and were passed over')
        if report:
            settings = {'support': support, 'encoders': ', '.join(found.seconds)}
            settings |= {f'weights of {w}': digest for w, digest in found.source.items()}
            write_text(report, page(found, f'Encoders for {root.name or root}', settings))
            print(f'report: {report}')


def _define_flags() -> None:
    """Here, so that whoever imports this module has flags of its own."""
    flags.DEFINE_string('support', '', 'Folder of examples: <class>/<image>.')
    flags.DEFINE_list('encoders', [], 'Names, files or NAME=FILE; default: those installed.')
    flags.DEFINE_string('out', '', 'Folder of report.html; default: the table only.')
    flags.DEFINE_enum('on_error', 'raise', ['raise', 'skip'], 'An image that cannot be read.')
    flags.DEFINE_bool('overwrite', False, 'Replaces report.html in --out.')


def cli() -> None:
    """Entry point, see `command.run`."""
    _define_flags()
    command.run(main)
