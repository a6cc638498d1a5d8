"""A fitted classifier or detector as a program that runs without this package's code.

    python -m anyshot_jax.export --model=FILE --out=FILE.stablehlo    # for JAX
    python -m anyshot_jax.export --model=FILE --out=FILE.onnx         # for onnxruntime and others

The program takes images [N, S, S, 3] uint8 (or feature vectors [N, D] float32) for any N, and
gives probabilities [N, C], likeness to a known class [N] and whether that says "unknown" [N].
Weights are in it. Classes stand beside it in FILE.json, and what reads images as they were read
here in <name>_images.py, which needs NumPy and Pillow only. See README.md for a loader. A
detector's program gives scores [N], whether they are defects [N] and maps of where [N, h, w].
"""

import json
import logging as python_logging
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags, logging
from jax import export as jax_export

from anyshot_jax import command
from anyshot_jax.classify import joint, nearest_mean
from anyshot_jax.data.readers import pixels
from anyshot_jax.storage import files
from anyshot_jax.storage.folders import user_path
from anyshot_jax.storage.lock import Lock, beside
from anyshot_jax.types import Array, InputError

PLATFORMS = ('cpu', 'cuda', 'tpu')
FORMATS = ('stablehlo', 'onnx')
OUTPUTS = ('probabilities', 'score', 'unknown')
CHECKED, TOLERANCE = 8, 1e-4  # items that an ONNX program is run on, and what it may differ by


class Program(NamedTuple):
    """Signature of a classifier's program."""

    embed: Callable[[Array], Array]  # [N, ...] -> features [N, D]
    answer: Callable[[Array], tuple[Array, ...]]  # features -> OUTPUTS
    item: tuple[int, ...]  # shape of one item
    dtype: Any


def program_of(classifier) -> Program:
    """The functions of a fitted classifier.

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

    def answer(features):
        with jax.default_matmul_precision('highest'):  # its answers don't depend on the machine
            score = nearest_mean.scores(head, nearest_mean.place(head.space, features, jnp), jnp)
            if words is not None:
                score = joint.scores(words, score, features, jnp)
            best = nearest_mean.familiarity(head, score, jnp)
        p = nearest_mean.probabilities(score, head.temperature, jnp)
        return p, best, best < head.threshold

    if not classifier.of_images_:
        return Program(lambda x: x, answer, (classifier.n_features_in_,), jnp.float32)
    net = classifier.encoder_
    embed = lambda x: net.encoder.apply(net.params, net.encoder.preprocess(x))
    return Program(embed, answer, (net.size, net.size, 3), jnp.uint8)


def exported(classifier, platforms=PLATFORMS) -> jax_export.Exported:
    """The program of a fitted classifier as JAX has it, for any number of items.

    Raises:
      InputError: as `program_of`.
    """
    program = program_of(classifier)
    one = lambda x: program.embed(x[None])[0]  # the nets choose their loops by a known batch
    embed = (lambda x: jax.lax.map(one, x)) if classifier.of_images_ else program.embed
    num = jax_export.symbolic_shape('n')[0]
    shape = jax.ShapeDtypeStruct((num, *program.item), program.dtype)
    whole = jax.jit(lambda x: program.answer(embed(x)))
    return jax_export.export(whole, platforms=tuple(platforms))(shape)


def converted(model) -> bytes:
    """The program of a fitted classifier or detector as ONNX, for any number of items.

    Raises:
      InputError: as `program_of` or `detect.program.answers`; no converter; or a part that it
        can't convert, named.
    """
    try:
        from jax2onnx import to_onnx
    except ImportError as e:
        raise InputError("ONNX is written by jax2onnx: pip install 'anyshot-jax[onnx]'") from e
    if hasattr(model, 'classes_'):
        program = program_of(model)
        answer = lambda x: program.answer(program.embed(x))
        item, dtype, outputs = program.item, program.dtype, OUTPUTS
    else:
        from anyshot_jax.detect.program import answers

        answer, side, _ = answers(model)
        item, dtype, outputs = (side, side, 3), jnp.uint8, ('score', 'defect', 'map')
    python_logging.getLogger('onnx_ir').setLevel(python_logging.ERROR)  # shapes that it left out
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # the converter asks for 64 bits where there are 32
            return to_onnx(
                answer,
                [jax.ShapeDtypeStruct(('n', *item), dtype)],  # type: ignore[arg-type]
                model_name='anyshot', output_names=list(outputs),
                input_names=['images' if dtype == jnp.uint8 else 'features'],
            ).SerializeToString()  # type: ignore[union-attr]  # fmt: skip
    except Exception as e:  # the converter raises many kinds
        reason = (str(e).strip() or type(e).__name__).splitlines()[0]
        what = getattr(model, 'encoder', 'this model') if dtype == jnp.uint8 else 'this model'
        raise InputError(
            f'{what} cannot be written as ONNX: jax2onnx says {reason!r}; .stablehlo can'
        ) from e


def difference(classifier, data: bytes) -> float | None:
    """The largest difference of probabilities between an ONNX program and its classifier.

    On items of the support (of images their thumbnails, enlarged); None without onnxruntime, or
    where there is no support. Unknown or not has to be the same where the score is off the limit.

    Raises:
      InputError: another answer, or more than TOLERANCE apart.
    """
    try:
        import onnxruntime
    except ImportError:
        return None
    num = len(classifier.support_names_)
    if not num:
        return None
    rows = np.linspace(0, num - 1, CHECKED).round().astype(int)
    if classifier.of_images_:
        size = classifier.encoder_.size
        small = np.asarray(classifier.support_images_)[rows]
        x = np.asarray(jax.image.resize(small, (CHECKED, size, size, 3), 'nearest'))
    else:
        x = np.asarray(classifier.support_features_, np.float32)[rows]
    session = onnxruntime.InferenceSession(data, providers=['CPUExecutionProvider'])
    p, best, unknown = session.run(None, {session.get_inputs()[0].name: x})
    apart = float(np.abs(p - classifier.predict_proba(x)).max())
    limit = -np.inf if classifier.threshold_ is None else classifier.threshold_
    firm = np.abs(best - limit) > TOLERANCE
    if not apart < TOLERANCE or (unknown != classifier.is_unknown(x))[firm].any():
        raise InputError(f'the ONNX program answers otherwise than the classifier ({apart:.1e})')
    return apart


def exported_detector(detector, platforms=PLATFORMS) -> jax_export.Exported:
    """The program of a fitted detector.

    Raises:
      InputError: as `detect.program.answers`.
    """
    from anyshot_jax.detect.program import answers

    answer, side, _ = answers(detector)
    num = jax_export.symbolic_shape('n')[0]
    shape = jax.ShapeDtypeStruct((num, side, side, 3), jnp.uint8)
    return jax_export.export(jax.jit(answer), platforms=tuple(platforms))(shape)


def _detector_difference(detector, data: bytes) -> float | None:
    """See `detect.program.difference`."""
    from anyshot_jax.detect import program

    return program.difference(detector, data, TOLERANCE)


def write(model, path: Path, platforms=PLATFORMS) -> str:
    """The program at `path`, and what its numbers mean in <path>.json.

    Returns:
      How it was checked, for people; '' if it was not.
    Raises:
      InputError: another suffix, a file that can't be written or that another call is writing, as
        `exported` or `converted`, or an ONNX program that answers otherwise than its classifier.
    """
    kind, checked = path.suffix.removeprefix('.'), ''
    if kind not in FORMATS:
        raise InputError(f'{path}: a program is a .stablehlo or an .onnx file')
    of_classes = hasattr(model, 'classes_')
    if kind == 'onnx':
        data = converted(model)
        apart = difference(model, data) if of_classes else _detector_difference(model, data)
        if apart is not None:
            what = 'probabilities differ' if of_classes else 'scores and maps differ'
            checked = f'run by onnxruntime: {what} by {apart:.1e} at most'
        said = _meaning(model)
    else:
        program = exported(model, platforms) if of_classes else exported_detector(model, platforms)
        try:
            data = bytes(program.serialize())
        except ImportError as e:
            raise InputError(
                "a program is written by flatbuffers: pip install 'anyshot-jax[app]'"
            ) from e
        said = _meaning(model) | {'platforms': list(program.platforms)}
    with Lock(beside(path), f'{path} is being written by another call'):  # both are of one call
        files.write_bytes(path, data)
        files.write_text(path.with_suffix(f'.{kind}.json'), json.dumps(said, indent=1) + '\n')
        if getattr(model, 'of_images_', False):
            source = Path(pixels.__file__).read_text('utf-8')
            files.write_text(path.with_name(reader_name(path)), source)
    return checked


def reader_name(path: Path) -> str:
    """The name of the module that reads images for a program."""
    return re.sub(r'\W', '_', path.stem) + '_images.py'


def _meaning(model) -> dict[str, Any]:
    """Metadata stored beside a program."""
    if not hasattr(model, 'classes_'):
        from anyshot_jax.detect.program import answers

        _, side, said = answers(model)
        return said | {'input': {'shape': ['n', side, side, 3], 'dtype': 'uint8'}}
    program = program_of(model)
    taken: dict[str, Any] = {'shape': ['n', *program.item], 'dtype': jnp.dtype(program.dtype).name}
    if model.of_images_:
        taken |= {'crop': model.reading_.crop, 'range': list(model.reading_.span)}
    return {
        'classes': model.classes_.tolist(),
        'input': taken,
        'output': ['probabilities [n, classes]', 'likeness to a class [n]', 'unknown [n]'],
        'threshold': model.threshold_,
    }


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    given = {name: flags.FLAGS[name].value for name in ('model', 'out', 'platforms', 'format')}
    if len(argv) > 1 or not given['model'] or not given['out']:
        raise InputError('give --model=FILE.safetensors and --out=FILE.stablehlo or FILE.onnx')
    out = user_path(given['out'])
    if given['format'] and out.suffix != f'.{given["format"]}':
        raise InputError(f'--format={given["format"]}, but --out={out} ends otherwise')
    try:
        from anyshot_jax.classify.classifier import AnyShotClassifier
        from anyshot_jax.detect.detector import AnomalyDetector
        from anyshot_jax.detect.model_file import is_detector
    except ImportError as e:
        raise InputError(str(e)) from e
    path = user_path(given['model'])
    model = AnomalyDetector.load(path) if is_detector(path) else AnyShotClassifier.load(path)
    checked = write(model, out, given['platforms'])
    print(f'program: {out}{checked and f" ({checked})"}\nwhat its numbers are: {out}.json')
    if isinstance(model, AnyShotClassifier) and model.of_images_:
        print(f'what reads images for it: {reader_name(out)}')


def _define_flags() -> None:
    """Here, so that whoever imports this module has flags of its own."""
    flags.DEFINE_string('model', '', 'What AnyShotClassifier.save or AnomalyDetector.save wrote.')
    flags.DEFINE_string('out', '', 'The file to write, .stablehlo or .onnx; FILE.json beside it.')
    flags.DEFINE_enum('format', None, list(FORMATS), 'Of the program; default: as --out ends.')
    flags.DEFINE_list('platforms', list(PLATFORMS), 'Where a .stablehlo is to run.')


def cli() -> None:
    """Entry point, see `command.run`."""
    _define_flags()
    command.run(main)


if __name__ == '__main__':
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    cli()
