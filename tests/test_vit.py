"""Vision transformers against transformers, with random weights at real depth and width."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from originals import need, relative

from anyshot_jax import encoders
from anyshot_jax.encoders import text_tower, vit_weights
from anyshot_jax.encoders.authors_names import to_transformers
from anyshot_jax.encoders.catalogue import VITS, net_of
from anyshot_jax.encoders.positions import resize_grid, rotary_angles
from anyshot_jax.types import InputError

SMALL = ['dinov2_vits14', 'dinov2_vits14_reg', 'dinov3_vits16', 'siglip2_b16', 'clip_vit_b16']


@pytest.fixture(scope='module')
def torch():
    torch = need('torch')
    torch.set_num_threads(2)
    return torch


@pytest.fixture(scope='module')
def transformers(torch):
    return need('transformers')


def theirs(transformers, name, **more):
    """The original of that name, with the sizes of its repository's config.json."""
    vit = VITS[name]
    names = {'hidden_size': 'width', 'num_hidden_layers': 'layers', 'patch_size': 'patch'}
    names |= {'num_attention_heads': 'num_heads', 'intermediate_size': 'hidden'}
    sizes = {k: vit.sizes[v] for k, v in names.items()} | more
    if vit.family in ('dinov2', 'dinov2_reg'):
        assert vit.sizes['hidden'] == 4 * vit.sizes.get('width')
        sizes.pop('intermediate_size')
        kind = 'Dinov2' if vit.family == 'dinov2' else 'Dinov2WithRegisters'
        sizes['image_size'] = 518
    elif vit.family == 'dinov3':
        kind = 'DINOv3ViT'
        sizes['num_register_tokens'] = 4
    elif vit.family == 'siglip':
        return transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**sizes))
    else:
        config = transformers.CLIPVisionConfig(projection_dim=vit.sizes['features'], **sizes)
        return transformers.CLIPVisionModelWithProjection(config)
    return getattr(transformers, f'{kind}Model')(getattr(transformers, f'{kind}Config')(**sizes))


def stirred(torch, model):
    """No bias, norm, scale or token at the value at which it is initialised."""
    torch.manual_seed(0)
    for name, p in model.named_parameters():
        if p.ndim == 1 or any(k in name for k in ('token', 'position', 'probe')):
            torch.nn.init.normal_(p, 0.3 if 'norm' in name else 0.0, 0.3)
    return model.eval()


def arrays(model):
    return {k: v.numpy() for k, v in model.state_dict().items()}


def answers(torch, model, net, family, x):
    """The original's features and map."""
    resized = {'interpolate_pos_encoding': True} if family in ('siglip', 'clip') else {}
    with torch.no_grad():
        out = model(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()), **resized)
        last = out.last_hidden_state
        if family == 'clip':
            last = model.vision_model.post_layernorm(last)
        features = out.image_embeds if family == 'clip' else out.pooler_output
    side = net.size // net.patch
    patches = last[:, int(net.class_token) + net.registers :].numpy()
    return features.numpy(), patches.reshape(len(x), side, side, -1)


@pytest.mark.originals
@pytest.mark.parametrize('name', SMALL)
def test_features_and_maps_equal_transformers(torch, transformers, name):
    """At 224 and at a size that positions must be brought to."""
    vit = VITS[name]
    model = stirred(torch, theirs(transformers, name))
    tensors = arrays(model)
    for size in (224, 5 * vit.sizes['patch']):
        net = vit.net(size)
        params = vit_weights.convert(tensors, net, vit.family)
        x = np.random.default_rng(size).standard_normal((1, size, size, 3), np.float32)
        got = net.apply(params, x)  # not compiled: its layers share what is compiled for each
        features, patches = answers(torch, model, net, vit.family, x)
        assert relative(got['features'], features) < 1e-4
        assert relative(got[f'stride{net.patch}'], patches) < 1e-4
    if name == 'dinov3_vits16':
        half = net.apply(params, jnp.asarray(x, jnp.bfloat16))
        assert half['features'].dtype == jnp.bfloat16
        assert relative(half['features'], features) < 0.1


@pytest.mark.originals
@pytest.mark.parametrize('name', sorted(set(VITS) - set(SMALL)))
def test_every_size_takes_the_originals_tensors(torch, transformers, name):
    """Names and shapes of all layers; numbers of the first, where a whole net takes long."""
    vit = VITS[name]
    with torch.device('meta'):
        shapes = {k: v.shape for k, v in theirs(transformers, name).state_dict().items()}
    tensors = to_transformers({k: np.broadcast_to(np.float32(0), s) for k, s in shapes.items()})
    assert net_of(tensors, None) in (name, 'siglip2_b16')  # whose tower of images is alike
    vit_weights.check(tensors, vit.net(), vit.family)
    model = stirred(torch, theirs(transformers, name, num_hidden_layers=1))
    net = vit.net(2 * vit.sizes['patch']).clone(layers=1)
    x = np.random.default_rng(0).standard_normal((1, net.size, net.size, 3), np.float32)
    got = net.apply(vit_weights.convert(arrays(model), net, vit.family), x)
    features, patches = answers(torch, model, net, vit.family, x)
    assert relative(got['features'], features) < 1e-4
    assert relative(got[f'stride{net.patch}'], patches) < 1e-4


@pytest.mark.originals
@pytest.mark.parametrize(('s', 'side'), [(37, 16), (14, 21), (7, 3)])
@pytest.mark.parametrize('antialias', [False, True])
def test_positions_are_resized_as_pytorch_does(torch, s, side, antialias):
    grid = np.random.default_rng(0).standard_normal((s, s, 3), np.float32)
    z = torch.from_numpy(grid.transpose(2, 0, 1)[None].copy())
    want = torch.nn.functional.interpolate(
        z, size=(side, side), mode='bicubic', align_corners=False, antialias=antialias
    )[0]
    got = resize_grid(grid, side, antialias=antialias)
    np.testing.assert_allclose(got, want.numpy().transpose(1, 2, 0), atol=1e-5)


def test_a_rotary_angle_by_hand():
    angles = rotary_angles(2, 4, head_dim=8, base=100.0)
    assert angles.shape == (8, 4)
    # The last patch: row centre 0.5 and column centre 0.75 in -1..1; frequencies 1 and 0.1.
    row, column = 2 * math.pi * 0.5, 2 * math.pi * 0.75
    np.testing.assert_allclose(angles[-1], [row, row / 10, column, column / 10], rtol=1e-6)


# Tensors by other names, and files.


def authors_dino(tensors, third):
    """facebookresearch's names of the same tensors, written down from their models."""
    e = 'embeddings.'
    found = {
        'cls_token': tensors[f'{e}cls_token'],
        'mask_token': tensors[f'{e}mask_token'],
        'norm.weight': tensors['norm.weight' if third else 'layernorm.weight'],
        'norm.bias': tensors['norm.bias' if third else 'layernorm.bias'],
    }
    for kind in ('weight', 'bias'):
        place = 'patch_embeddings' if third else 'patch_embeddings.projection'
        found[f'patch_embed.proj.{kind}'] = tensors[f'{e}{place}.{kind}']
    if f'{e}register_tokens' in tensors:
        key = 'storage_tokens' if third else 'register_tokens'
        found[key] = tensors[f'{e}register_tokens']
    if not third:
        found['pos_embed'] = tensors[f'{e}position_embeddings']
    layers = [n for n in tensors if n.endswith('norm1.weight')]
    for i in range(len(layers)):
        t = f'layer.{i}' if third else f'encoder.layer.{i}'
        a = f'{t}.attention'
        get = lambda k, kind, a=a: tensors.get(f'{a}.{k}_proj.{kind}')
        width = len(tensors['norm.bias' if third else 'layernorm.bias'])
        for kind in ('weight', 'bias'):
            three = [get(k, kind) for k in 'qkv']
            three = [np.full(width, 7, np.float32) if p is None else p for p in three]  # masked
            found[f'blocks.{i}.attn.qkv.{kind}'] = np.concatenate(three)
            found[f'blocks.{i}.attn.proj.{kind}'] = tensors[f'{a}.o_proj.{kind}']
            mlp = ('up_proj', 'down_proj') if third else ('fc1', 'fc2')
            for j, m in enumerate(mlp, 1):
                found[f'blocks.{i}.norm{j}.{kind}'] = tensors[f'{t}.norm{j}.{kind}']
                found[f'blocks.{i}.mlp.fc{j}.{kind}'] = tensors[f'{t}.mlp.{m}.{kind}']
        if third:
            found[f'blocks.{i}.attn.qkv.bias_mask'] = np.ones(3 * width, np.float32)
        for j in (1, 2):
            found[f'blocks.{i}.ls{j}.gamma'] = tensors[f'{t}.layer_scale{j}.lambda1']
    return found


@pytest.mark.originals
@pytest.mark.parametrize('name', ['dinov2_vits14_reg', 'dinov3_vits16'])
def test_files_of_transformers_and_of_the_authors_are_known(torch, transformers, name, tmp_path):
    """Saved by the library itself; loaded by the net's name, by its tensors, by authors' names."""
    safetensors = pytest.importorskip('safetensors.numpy', reason='the extra pretrained')
    model = stirred(torch, theirs(transformers, name))
    model.save_pretrained(tmp_path / 'saved')
    first = encoders.load(str(tmp_path / 'saved'))
    third = name.startswith('dinov3')
    tensors = {k.removeprefix('model.'): v for k, v in arrays(model).items()}
    by_authors = {k: np.ascontiguousarray(v) for k, v in authors_dino(tensors, third).items()}
    safetensors.save_file(by_authors, tmp_path / 'authors.safetensors')
    second = encoders.load(f'{name}={tmp_path}/authors.safetensors')
    assert first.name == second.name == name and first.digest == second.digest
    assert net_of(to_transformers(by_authors), tmp_path) == name
    assert first.dim == 384 and first.text is None
    joined = encoders.load(str(tmp_path / 'saved'), parts=(f'stride{VITS[name].sizes["patch"]}',))
    assert joined.parts == (384, 768)
    off = encoders.load(str(tmp_path / 'saved'), size=100)  # no multiple of the patch
    patch = VITS[name].sizes['patch']
    assert (
        off.size == 100 // patch * patch == off.preprocess(np.zeros((1, 50, 50, 3), 'u1')).shape[1]
    )
    with pytest.raises(InputError, match='hold no patch of'):
        encoders.load(str(tmp_path / 'saved'), size=patch - 1)
    other = 'dinov3_vits16' if name != 'dinov3_vits16' else 'dinov2_vits14'
    with pytest.raises(InputError, match=r'saved.*no tensor .*unexpected'):
        encoders.load(f'{other}={tmp_path}/saved')
    wide = name.replace('vits', 'vitb')
    with pytest.raises(InputError, match=r'has shape .*384.*expected .*768'):
        encoders.load(f'{wide}={tmp_path}/saved')


def authors_siglip(tensors, scan):
    """big_vision's names of the same arrays, as Flax keeps them."""
    found = {}

    def dense(there, here, heads=0, out=False):
        w, b = tensors[f'{here}.weight'].T, tensors[f'{here}.bias']
        if heads:
            w = w.reshape(heads, -1, w.shape[1]) if out else w.reshape(w.shape[0], heads, -1)
            b = b if out else b.reshape(heads, -1)
        found[f'{there}/kernel'], found[f'{there}/bias'] = w, b

    def norm(there, here):
        found[f'{there}/scale'] = tensors[f'{here}.weight']
        found[f'{there}/bias'] = tensors[f'{here}.bias']

    for tower, encoder, model, last in (
        ('img', 'Transformer', 'vision_model', 'post_layernorm'),
        ('txt', 'Encoder_0', 'text_model', 'final_layer_norm'),
    ):
        start = f'params/{tower}/{encoder}'
        norm(f'{start}/encoder_norm', f'{model}.{last}')
        place = tensors[f'{model}.embeddings.position_embedding.weight']
        found[f'params/{tower}/pos_embedding'] = place[None]
        for i in range(2):
            t, b = f'{model}.encoder.layers.{i}', f'{start}/encoderblock_{i}'
            for j in (0, 1):
                norm(f'{b}/LayerNorm_{j}', f'{t}.layer_norm{j + 1}')
                dense(f'{b}/MlpBlock_0/Dense_{j}', f'{t}.mlp.fc{j + 1}')
            for k in ('query', 'key', 'value', 'out'):
                at = f'{b}/MultiHeadDotProductAttention_0/{k}'
                dense(at, f'{t}.self_attn.{k[0] if k != "out" else "out"}_proj', 4, k == 'out')
    kernel = tensors['vision_model.embeddings.patch_embedding.weight']
    found['params/img/embedding/kernel'] = kernel.transpose(2, 3, 1, 0)
    found['params/img/embedding/bias'] = tensors['vision_model.embeddings.patch_embedding.bias']
    table = tensors['text_model.embeddings.token_embedding.weight']
    found['params/txt/Embed_0/embedding'] = table
    dense('params/txt/head', 'text_model.head')
    head, pool = 'vision_model.head', 'params/img/MAPHead_0'
    found[f'{pool}/probe'] = tensors[f'{head}.probe']
    norm(f'{pool}/LayerNorm_0', f'{head}.layernorm')
    for j in (0, 1):
        dense(f'{pool}/MlpBlock_0/Dense_{j}', f'{head}.mlp.fc{j + 1}')
    attention = f'{pool}/MultiHeadDotProductAttention_0'
    for i, k in enumerate(('query', 'key', 'value')):
        rows = slice(32 * i, 32 * (i + 1))
        w = tensors[f'{head}.attention.in_proj_weight'][rows].T
        found[f'{attention}/{k}/kernel'] = w.reshape(32, 4, 8)
        found[f'{attention}/{k}/bias'] = tensors[f'{head}.attention.in_proj_bias'][rows].reshape(
            4, 8
        )
    dense(f'{attention}/out', f'{head}.attention.out_proj', 4, out=True)
    found['params/t'] = tensors['logit_scale']
    found['params/b'] = tensors['logit_bias']
    if scan:
        for tower, encoder in (('img', 'Transformer'), ('txt', 'Encoder_0')):
            start = f'params/{tower}/{encoder}/encoderblock'
            ends = [n.removeprefix(f'{start}_0/') for n in found if n.startswith(f'{start}_0/')]
            for end in ends:
                found[f'{start}/{end}'] = np.stack(
                    [found.pop(f'{start}_{i}/{end}') for i in (0, 1)]
                )
    return found


@pytest.fixture(scope='module')
def siglip(torch, transformers):
    """A small SiglipModel, every size another one, and our towers."""
    text = {'vocab_size': 50, 'max_position_embeddings': 10, 'hidden_size': 32}
    text |= {'num_hidden_layers': 2, 'num_attention_heads': 4, 'intermediate_size': 40}
    image = {'image_size': 24, 'patch_size': 8, 'hidden_size': 32, 'num_hidden_layers': 2}
    image |= {'num_attention_heads': 4, 'intermediate_size': 56}
    config = transformers.SiglipConfig(text_config=text, vision_config=image)
    sizes = {'patch': 8, 'width': 32, 'layers': 2, 'num_heads': 4, 'hidden': 56}
    fields = text_tower.SIGLIP | {'context': 10, 'width': 32, 'num_heads': 4, 'hidden': 40}
    tower = text_tower.TextTower(**fields | {'features': 32}, vocabulary=50, layers=2)
    net = vit_weights.net_of_family('siglip', **sizes, size=24)
    return stirred(torch, transformers.SiglipModel(config)), net, tower


@pytest.mark.originals
@pytest.mark.parametrize('scan', [False, True])
def test_siglip_of_big_vision_is_the_same(siglip, scan):
    model, net, tower = siglip
    tensors = arrays(model)
    renamed = to_transformers(authors_siglip(tensors, scan))
    for convert in (
        lambda t: vit_weights.convert(t, net, 'siglip'),
        lambda t: text_tower.convert(t, tower),
    ):
        ours, same = convert(tensors), convert(renamed)
        jax.tree.map(np.testing.assert_array_equal, ours, same)


@pytest.mark.originals
def test_siglips_towers_equal_transformers(torch, siglip):
    """Both in one space: the cosines times the scale are the original's logits, less its bias."""
    model, net, tower = siglip
    tensors = arrays(model) | {'logit_scale': np.log(np.float32([5.0]))}
    model.logit_scale.data.fill_(math.log(5.0))
    ids = np.random.default_rng(0).integers(0, 50, (3, 10), np.int32)
    x = np.random.default_rng(0).standard_normal((2, 24, 24, 3), np.float32)
    with torch.no_grad():
        pixels = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
        out = model(input_ids=torch.from_numpy(ids.astype(np.int64)), pixel_values=pixels)
        logits = (out.logits_per_image - model.logit_bias).numpy()
    z = net.apply(vit_weights.convert(tensors, net, 'siglip'), x)['features']
    t = tower.apply(text_tower.convert(tensors, tower), ids)
    unit = lambda a: np.asarray(a) / np.linalg.norm(np.asarray(a), axis=1, keepdims=True)
    assert relative(unit(z) @ unit(t).T * text_tower.scale_of(tensors), logits) < 1e-4
    with pytest.raises(InputError, match='takes 10 tokens, got 9'):
        tower.apply(text_tower.convert(tensors, tower), ids[:, :9])
