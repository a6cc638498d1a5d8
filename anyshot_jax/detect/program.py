"""A fitted detector as one function of images, for `export`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from anyshot_jax.detect.detector import AnomalyDetector
from anyshot_jax.ops.neighbours import nearest
from anyshot_jax.types import InputError

CHECKED = 4  # squares that an ONNX program is run on


def answers(detector: AnomalyDetector) -> tuple[Callable, int, dict[str, Any]]:
    """(squares [N, S, S, 3] uint8 -> (scores [N], defect [N] bool, maps [N, h, w]), S, what is so).

    With tiles a square is one of them; an image's score is the largest of its tiles'.

    Raises:
      InputError: several products, a foreground or no threshold, which no such function has.
    """
    if len(detector.normal_) > 1:
        raise InputError(
            f'a program judges one product, this detector knows {", ".join(detector.products_)}: '
            'fit one detector for each'
        )
    if detector.foreground != 'none':
        raise InputError(f'foreground={detector.foreground!r} is found outside of a program')
    (limit,), (promise,) = detector.limit_of_.values(), detector.promise_of_.values()
    if limit is None or promise is None:
        raise InputError('a detector of one normal image has no threshold: give it more')
    eye, (bank,) = detector._eye(), detector._banks.values()
    rows = bank.rows[bank.fold >= 0]
    num = max(1, round(detector.share * eye.cells**2))

    def one(x):
        seen = eye.see(eye.params, x[None])
        square, _ = nearest(seen.patches.reshape(-1, eye.dim), jnp.asarray(rows))
        value = eye.valued(jnp.sqrt(square).reshape(seen.patches.shape[:3]), seen, eye.net)[0]
        score = jax.lax.top_k(value.reshape(-1), num)[0].mean()
        return score, score > limit, value

    said = {
        'output': ['score [n]', 'defect [n]', f'map [n, {eye.cells}, {eye.cells}]'],
        'threshold': limit,
        'promise': promise._asdict(),
        'tile': detector.tile,
        'size': detector.size,
    }
    # One by one: the nets choose their loops by a known batch.
    return (lambda x: jax.lax.map(one, x)), eye.side, said


def difference(detector: AnomalyDetector, data: bytes, tolerance: float) -> float | None:
    """The largest difference of scores and maps between an ONNX program and its detector, as share.

    On squares of coarse noise, for a detector keeps no images; None without onnxruntime. Defect or
    not has to be the same where the score is off the threshold.

    Raises:
      InputError: another answer, or more than `tolerance` apart.
    """
    try:
        import onnxruntime
    except ImportError:
        return None
    answer, side, said = answers(detector)
    coarse = np.random.default_rng(0).integers(0, 256, (CHECKED, 8, 8, 3)).astype(np.uint8)
    smooth = jax.image.resize(coarse.astype(np.float32), (CHECKED, side, side, 3), 'linear')
    x = np.asarray(smooth).astype(np.uint8)
    quiet = onnxruntime.SessionOptions()
    quiet.log_severity_level = 3  # it warns of what the converter leaves over
    session = onnxruntime.InferenceSession(data, quiet, providers=['CPUExecutionProvider'])
    score, defect, maps = session.run(None, {session.get_inputs()[0].name: x})
    wanted, is_defect, wanted_maps = map(np.asarray, jax.jit(answer)(x))
    size = max(float(wanted_maps.max()), 1e-12)
    apart = float(max(np.abs(score - wanted).max(), np.abs(maps - wanted_maps).max())) / size
    firm = np.abs(wanted - said['threshold']) > tolerance * size
    if not apart < tolerance or (defect != is_defect)[firm].any():
        raise InputError(f'the ONNX program answers otherwise than the detector ({apart:.1e})')
    return apart
