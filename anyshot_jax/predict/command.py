"""python -m anyshot_jax.predict --support=DIR --query=DIR [--descriptions=classes.json] --out=OUT
python -m anyshot_jax.predict --good=DIR [--types=DIR] --query=DIR --out=OUT

Classifies the images of a folder from a few examples of each class, from descriptions, or both,
into OUT/predictions.csv and OUT/report.html. The same command goes on after a stop, and what was
embedded once is not embedded again. With --good, finds defects (`defects.py`).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import flags, logging

from anyshot_jax import command
from anyshot_jax.types import InputError


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise InputError(
            f'unexpected argument {argv[1]!r}; options are written --query=DIR and so on'
        )
    try:
        # JAX starts here, after the flags are known to be right.
        from anyshot_jax.predict import defects, run
        from anyshot_jax.runtime import start
    except ImportError as e:
        raise InputError(str(e)) from e

    value: Callable[[str], Any] = lambda name: flags.FLAGS[name].value
    if defects.is_asked(value('good'), value('types'), value('model')):
        return _find_defects(defects)
    fields = run.Request._fields
    for name in sorted({*defects.Request._fields} - {*fields}):
        if flags.FLAGS[name].present:
            raise InputError(
                f'--{name} is about defects: give --good=DIR, a folder of normal images'
            )
    given: dict[str, Any] = {name: flags.FLAGS[name].value for name in fields}
    ask = run.Request(**given)
    if ask.model and (flags.FLAGS['encoder'].present or flags.FLAGS['method'].present):
        raise InputError('--model is fitted already: leave --encoder and --method out')
    logging.set_verbosity(logging.WARNING)
    start.keep_compiled()
    done = run.run(ask)
    print(summary(done, ask.unknown))
    print(
        f'predictions: {Path(ask.out) / "predictions.csv"}\nreport: {Path(ask.out) / "report.html"}'
    )


def summary(done: dict[str, Any], unknown: str) -> str:
    """Summary of a call of `run`, in a line or two.

    Args:
      done: as `run.run` gives it. unknown: the answer to images of no class, '' for none.
    """
    parts = [f'{done["images"]:,} images, {done["unreadable"]:,} unreadable']
    if not done['tells']:
        parts.append('nothing tells what is of no known class: no class has two examples')
    elif unknown:
        parts.append(f'{done["unknown"]:,} of no known class, answered {unknown!r}')
    elif done['unknown']:
        parts.append(
            f'{done["unknown"]:,} of no known class, answered with the nearest class all the same '
            '(column unknown; --unknown=LABEL answers otherwise)'
        )
    else:
        parts.append('0 of no known class')
    parts.append(f'{done["embedded"]:,} embedded now')
    if done['accuracy'] is not None:
        of = f' of the {done["asked"]:,} in folders of known classes' if done['strangers'] else ''
        parts.append(f'accuracy {done["accuracy"] * 100:.2f} %{of}')
    elif done['strangers']:
        parts.append('no accuracy: no image lies in the folder of a known class')
    parts.append(f'{done["seconds"]:.1f} s')
    return '; '.join(parts) + _worth_a_word(done['notes'])


def _find_defects(defects: Any) -> None:
    from anyshot_jax.runtime import start

    own = defects.Request._fields
    ask = defects.Request(**{n: flags.FLAGS[n].value for n in own if flags.FLAGS[n].present})
    for name in ('support', 'descriptions', 'unknown', 'method'):
        if flags.FLAGS[name].present:
            raise InputError(f'--{name} is about classes, --good and --types about defects')
    if ask.model and (given := [n for n in defects.FITTED if flags.FLAGS[n].present]):
        raise InputError(f'--model is fitted already: leave --{given[0]} out')
    logging.set_verbosity(logging.WARNING)
    start.keep_compiled()
    done = defects.run(ask)
    print(
        f'{done["images"]:,} images, {done["defects"]:,} with a defect, '
        f'{done["unreadable"]:,} unreadable; {done["seconds"]:.1f} s'
        f'{_worth_a_word(done["notes"])}\n'
        f'predictions: {Path(ask.out) / "predictions.csv"}\n'
        f'report: {Path(ask.out) / "report.html"}'
    )


def _worth_a_word(notes: str) -> str:
    return f'\npassed over, or worth a word: {notes}' if notes else ''


def _define_flags() -> None:
    """Here, so that whoever imports this module has flags of its own."""
    text = lambda name, default, said: flags.DEFINE_string(name, default, said)
    text('support', '', 'Folder of examples: <class>/<image>.')
    text('query', '', 'Folder of images to classify; <class>/<image> where the class is known.')
    text('model', '', 'A fitted classifier (.safetensors), instead of --support.')
    text('descriptions', '', 'JSON {"class": "description"}, also of classes without examples.')
    text('encoder', 'efficientnet_lite0', 'Of the images; a name, a weights file or NAME=FILE.')
    text('method', 'prototypes', 'prototypes | refine (all images together) | workdir of a run.')
    text('unknown', '', 'The answer to images of no class. Default: the nearest class.')
    text('out', '', 'Folder of predictions.csv and report.html.')
    text('save', '', 'Keeps the fitted classifier in this file (.safetensors).')
    # Defects, from images without any.
    text('good', '', 'Folder of normal images: finds defects instead of telling classes.')
    text('types', '', 'Folder of known types of defects: <type>/<image>.')
    flags.DEFINE_bool('products', False, 'The folders in --good are products.')
    number = lambda name, default, said: flags.DEFINE_integer(name, default, said)
    number('size', 256, 'Pixels that images are brought to; with --tile, 0: as they are.')
    number('tile', 0, 'Pixels of the tiles that large images are cut into; 0: none.')
    number('turns', 0, 'Turned copies of each normal image, such as 3: by 90 degrees.')
    number('memory', 10_000, 'Patches that are remembered of a product, at most.')
    text('foreground', 'none', 'How the object is found that counts: none, flood, grabcut, pca.')
    flags.DEFINE_float('share', 0.0, 'Of the patches, the worst, whose mean is the score; 0: one.')
    flags.DEFINE_bool('cosine', False, 'Compares patches by their angle, for transformers.')
    said = 'Adds what a net has learnt of synthetic defects on the normal images.'
    flags.DEFINE_bool('learnt', False, said)
    said = 'Learns from synthetic defects by what the types in --types differ.'
    flags.DEFINE_bool('pretrain', False, said)
    flags.DEFINE_float('false_alarm', 0.01, 'Share of normal images that may be called defects.')
    flags.DEFINE_enum('on_error', 'raise', ['raise', 'skip'], 'An image that cannot be read.')
    crops = ['auto', 'whole', 'centre', 'tiles']
    said = 'What is seen of images that are no squares; auto: tiles of long ones; with --good all.'
    flags.DEFINE_enum('crop', 'auto', crops, said)
    said = 'LOW,HIGH: what becomes black and white of 16 bits and floats. Default: their own range.'
    text('range', '', said)
    said = 'An image of more pixels is a row with an error.'
    flags.DEFINE_integer('max_pixels', 50_000_000, said)
    flags.DEFINE_bool('follow_links', False, 'Also where links lead out of the folder.')
    said = 'Imports, which runs, the modules of your own that a --method=WORKDIR names.'
    flags.DEFINE_bool('allow_code', False, said)
    flags.DEFINE_bool('overwrite', False, 'Replaces files in --out that others made.')


def cli() -> None:
    """Entry point, see `command.run`."""
    _define_flags()
    command.run(main)
