"""Frozen residual nets against torchvision's, with random weights and random running statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from originals import need, relative

from anyshot_jax.encoders import resnet
from anyshot_jax.encoders.weights import read_tensors
from anyshot_jax.types import InputError

NETS = {
    'resnet18': resnet.resnet18,
    'resnet50': resnet.resnet50,
    'wide_resnet50_2': resnet.wide_resnet50_2,
}


@pytest.fixture(scope='module')
def torch():
    return need('torch')


@pytest.fixture(scope='module')
def models(torch):
    return need('torchvision').models


def randomise(torch, model, seed=0):
    """Batch norms as after training: nothing at its initial value."""
    torch.manual_seed(seed)
    for m in model.modules():
        if isinstance(m, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(m.weight, 0.5, 1.5)
            torch.nn.init.normal_(m.bias, 0, 0.2)
            m.running_mean.normal_(0, 0.2)
            m.running_var.uniform_(0.5, 2)
    return model.eval()


def torch_maps(torch, model, x):
    """The maps after each stage and the input of the classifier, channels last."""
    out = {}

    def keep(name):
        return lambda module, args, y: out.__setitem__(name, y)

    for i in range(4):
        getattr(model, f'layer{i + 1}').register_forward_hook(keep(f'stride{4 << i}'))
    model.avgpool.register_forward_hook(keep('features'))
    with torch.no_grad():
        model(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()))
    maps = {k: v.numpy().transpose(0, 2, 3, 1) for k, v in out.items()}
    return maps | {'features': maps['features'][:, 0, 0]}


@pytest.mark.originals
@pytest.mark.parametrize(('name', 'size'), [(n, (64, 64)) for n in NETS] + [('resnet18', (75, 98))])
def test_named_nets_equal_torchvision(torch, models, tmp_path, name, size):
    from safetensors.torch import save_file

    model = randomise(torch, getattr(models, name)(weights=None))
    save_file(model.state_dict(), tmp_path / 'w.safetensors')
    net = NETS[name]()
    params = resnet.convert(read_tensors(tmp_path / 'w.safetensors'), net)
    x = np.random.default_rng(0).standard_normal((2, *size, 3), np.float32)
    got = jax.jit(net.apply)(params, x)
    want = torch_maps(torch, model, x)
    assert got.keys() == want.keys()
    for k in want:
        assert relative(got[k], want[k]) < 1e-4, k


def small():
    """A net of 4 channels, and tensors by torchvision's names, written by hand."""
    net = resnet.ResNet((1, 1), width=4)
    tensors = {}

    def conv(name, norm, o, c, k):
        tensors[f'{name}.weight'] = np.ones((o, c, k, k), np.float32)
        for part in ('weight', 'bias', 'running_mean', 'running_var'):
            tensors[f'{norm}.{part}'] = np.ones((o,), np.float32)
        tensors[f'{norm}.num_batches_tracked'] = np.zeros((), np.int64)

    conv('conv1', 'bn1', 4, 3, 7)
    for layer, (c, o) in enumerate([(4, 4), (4, 8)], 1):
        conv(f'layer{layer}.0.conv1', f'layer{layer}.0.bn1', o, c, 3)
        conv(f'layer{layer}.0.conv2', f'layer{layer}.0.bn2', o, o, 3)
    conv('layer2.0.downsample.0', 'layer2.0.downsample.1', 8, 4, 1)
    return net, tensors | {'fc.weight': np.zeros((10, 8)), 'fc.bias': np.zeros(10)}


def test_convert_takes_the_whole_state_dict_and_folds():
    net, tensors = small()
    tensors['conv1.weight'] *= 3
    tensors['bn1.running_var'] = np.full(4, 4 - resnet.EPS, np.float32)
    tensors['bn1.bias'] *= 7
    conv = resnet.convert(tensors, net)['params']['conv1']
    # (3 x - 1) / 2 + 7 = 1.5 x + 6.5
    np.testing.assert_allclose(conv['kernel'], 1.5, rtol=1e-6)
    np.testing.assert_allclose(conv['bias'], 6.5, rtol=1e-6)


def test_convert_names_what_is_wrong():
    net, tensors = small()
    del tensors['layer1.0.conv2.weight']
    tensors['layer1.0.conv3.weight'] = np.zeros(1)
    with pytest.raises(InputError, match=r'layer1\.0\.conv2\.weight.*layer1\.0\.conv3\.weight'):
        resnet.convert(tensors, net)
    net, tensors = small()
    tensors['bn1.bias'] = np.zeros(5)
    with pytest.raises(InputError, match=r'bn1\.bias.*\(5,\).*\(4,\)'):
        resnet.convert(tensors, net)


def test_bfloat16_in_gives_bfloat16_near_float32():
    net, _ = small()
    params = net.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    x = np.random.default_rng(0).standard_normal((2, 16, 16, 3), np.float32)
    want = jax.jit(net.apply)(params, x)
    for k, y in jax.jit(net.apply)(params, jnp.asarray(x, jnp.bfloat16)).items():
        assert y.dtype == jnp.bfloat16
        assert relative(y, np.asarray(want[k])) < 0.05, k
