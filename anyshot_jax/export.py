"""A fitted classifier or detector as StableHLO, which JAX runs without this package's code.

    python -m anyshot_jax.export --model=FILE --out=FILE.stablehlo

The program takes images [N, S, S, 3] uint8 (or feature vectors [N, D] float32) for any N, and
gives probabilities [N, C], likeness to a known class [N] and whether that says "unknown" [N].
Weights are in it. Classes stand beside it in FILE.json, and what reads images as they were read
here in <name>_images.py, which needs NumPy and Pillow only. See README.md for a loader. A
detector's program gives scores [N], whether they are defects [N] and maps of where [N, h, w].
"""

import json
import os
import re
from pathlib import Path

import jax
import jax.numpy as jnp
from absl import flags, logging
from jax import export as jax_export

from anyshot_jax import command
from anyshot_jax.classify import joint, nearest_mean
from anyshot_jax.data.readers import pixels
from anyshot_jax.storage import files
from anyshot_jax.storage.lock import Lock, beside
from anyshot_jax.types import InputError

PLATFORMS = ('cpu', 'cuda', 'tpu')


def exported(classifier, platforms=PLATFORMS) -> jax_export.Exported:
    """The program of a fitted classifier, for any number of items.

    Raises:
      InputError: a transductive one, whose answers depend on all items of a call.
    """
    if classifier.transductive:
        raise InputError(
            f'method={classifier.method!r} answers all items of a call together, which no fixed '
            "program does: set method='prototypes'"
        )
    if classifier.of_images_ and classifier.crop == 'tiles':
        raise InputError("crop='tiles' shows several squares of an image, a program takes one: set "
                         "crop='whole' and fit again")  # fmt: skip
    if not classifier.frame_.as_they_are:
        raise InputError('these feature vectors lie too far off for a program of float32: bring '
                         'each feature to mean 0 and deviation 1, and fit again')  # fmt: skip
    head, words = jax.tree.map(jnp.asarray, (classifier.head_, classifier.joint_))
    if classifier.of_images_:
        net = classifier.encoder_
        one = lambda x: net.encoder.apply(net.params, net.encoder.preprocess(x[None]))[0]
        embed = lambda x: jax.lax.map(one, x)  # the nets choose their loops by a known batch
        item, dtype = [net.size, net.size, 3], jnp.uint8
    else:
        embed, item, dtype = (lambda x: x), [classifier.n_features_in_], jnp.float32

    @jax.jit
    def answer(x):
        features = embed(x)
        with jax.default_matmul_precision('highest'):  # its answers don't depend on the machine
            score = nearest_mean.scores(head, nearest_mean.place(head.space, features, jnp), jnp)
            if words is not None:
                score = joint.scores(words, score, features, jnp)
            best = nearest_mean.familiarity(head, score, jnp)
        p = nearest_mean.probabilities(score, head.temperature, jnp)
        return p, best, best < head.threshold

    num = jax_export.symbolic_shape('n')[0]
    shape = jax.ShapeDtypeStruct((num, *item), dtype)
    return jax_export.export(answer, platforms=tuple(platforms))(shape)


def exported_detector(detector, platforms=PLATFORMS) -> tuple[jax_export.Exported, dict]:
    """The program of a fitted detector, and what its numbers mean.

    Raises:
      InputError: as `detect.program.answers`.
    """
    from anyshot_jax.detect.program import answers

    answer, side, said = answers(detector)
    num = jax_export.symbolic_shape('n')[0]
    shape = jax.ShapeDtypeStruct((num, side, side, 3), jnp.uint8)
    return jax_export.export(jax.jit(answer), platforms=tuple(platforms))(shape), said


def write(model, path: Path, platforms=PLATFORMS) -> None:
    """The program at `path`, and what its numbers mean in <path>.json.

    Raises:
      InputError: another suffix, a file that can't be written or that another call is writing, or
        as `exported`.
    """
    if path.suffix != '.stablehlo':
        raise InputError(f'{path}: a program is a .stablehlo file')
    if hasattr(model, 'classes_'):
        program = exported(model, platforms)
        said = {
            'classes': model.classes_.tolist(),
            'output': [
                'probabilities [n, classes]',
                'likeness to a class [n]',
                'unknown [n]',
            ],
            'threshold': model.threshold_,
        }
    else:
        program, said = exported_detector(model, platforms)
    try:
        data = bytes(program.serialize())
    except ImportError as e:
        raise InputError(
            "a program is written by flatbuffers: pip install 'anyshot-jax[app]'"
        ) from e
    (item,) = program.in_avals
    said |= {
        'input': {'shape': ['n', *item.shape[1:]], 'dtype': str(item.dtype)},
        'platforms': list(program.platforms),
    }
    of_squares = getattr(model, 'of_images_', False)
    if of_squares:
        how = model.reading_
        said['input'] |= {'crop': how.crop, 'range': list(how.span)}
    with Lock(beside(path), f'{path} is being written by another call'):  # both are of one call
        files.write_bytes(path, data)
        files.write_text(path.with_suffix('.stablehlo.json'), json.dumps(said, indent=1) + '\n')
        if of_squares:
            source = Path(pixels.__file__).read_text('utf-8')
            files.write_text(path.with_name(reader_name(path)), source)


def reader_name(path: Path) -> str:
    """The name of the module that reads images for a program."""
    return re.sub(r'\W', '_', path.stem) + '_images.py'


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    given = {name: flags.FLAGS[name].value for name in ('model', 'out', 'platforms')}
    if len(argv) > 1 or not given['model'] or not given['out']:
        raise InputError('give --model=FILE.safetensors and --out=FILE.stablehlo')
    try:
        from anyshot_jax.classify.classifier import AnyShotClassifier
        from anyshot_jax.detect.detector import AnomalyDetector
        from anyshot_jax.detect.model_file import is_detector
    except ImportError as e:
        raise InputError(str(e)) from e
    path = Path(given['model'])
    model = AnomalyDetector.load(path) if is_detector(path) else AnyShotClassifier.load(path)
    write(model, Path(given['out']), given['platforms'])
    print(f'program: {given["out"]}\nwhat its numbers are: {given["out"]}.json')
    if isinstance(model, AnyShotClassifier) and model.of_images_:
        print(f'what reads images for it: {reader_name(Path(given["out"]))}')


def _define_flags() -> None:
    """Here, so that whoever imports this module has flags of its own."""
    flags.DEFINE_string('model', '', 'What AnyShotClassifier.save or AnomalyDetector.save wrote.')
    flags.DEFINE_string('out', '', 'The file to write, .stablehlo; FILE.json beside it.')
    flags.DEFINE_list('platforms', list(PLATFORMS), 'Where it is to run.')


def cli() -> None:
    """Entry point, see `command.run`."""
    _define_flags()
    command.run(main)


if __name__ == '__main__':
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    cli()
