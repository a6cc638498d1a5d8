"""CLIP's towers, and tokenizers of small vocabularies, against those of transformers."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from originals import need, relative

from anyshot_jax.encoders import text_tower, tokens, vit_weights
from anyshot_jax.encoders.catalogue import VITS
from anyshot_jax.encoders.weights import read_tensors
from anyshot_jax.types import InputError

TEXTS = [
    'a photo of a low lower lowest dog.',
    '',
    "  It's  12 o'clock,\tWE'RE\nlate!!!  ",
    'Grüße, 東京 ½ naïve émigré',
    'low ' * 100,
]
IMAGE = {'patch': 8, 'width': 32, 'layers': 3, 'num_heads': 4, 'hidden': 56, 'features': 20}


@pytest.fixture(scope='module')
def torch():
    return need('torch')


@pytest.fixture(scope='module')
def transformers(torch):
    return need('transformers')


@pytest.fixture(scope='module')
def small(torch, transformers):
    """A CLIPModel with every size different, no parameter at its initial value, and our towers."""
    text = {'vocab_size': 60, 'max_position_embeddings': 12, 'hidden_size': 24}
    text |= {'num_hidden_layers': 2, 'num_attention_heads': 3, 'intermediate_size': 40}
    text |= {'eos_token_id': 59, 'bos_token_id': 58}
    image = {'image_size': 24, 'patch_size': 8, 'hidden_size': 32}
    image |= {'num_hidden_layers': 3, 'num_attention_heads': 4, 'intermediate_size': 56}
    torch.manual_seed(0)
    config = transformers.CLIPConfig(text_config=text, vision_config=image, projection_dim=20)
    model = transformers.CLIPModel(config).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, 0.1, 0.3)
    return model, (
        vit_weights.net_of_family('clip', **IMAGE, size=24),
        text_tower.TextTower(
            60, 12, 24, layers=2, num_heads=3, hidden=40, features=20, end_token=59
        ),
    )


def image_features(torch, model, x):
    with torch.no_grad():
        pixels = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
        return model.visual_projection(model.vision_model(pixels).pooler_output).numpy()


def text_features(torch, model, ids):
    with torch.no_grad():
        state = model.text_model(torch.from_numpy(ids.astype(np.int64)))
        return model.text_projection(state.pooler_output).numpy()


def arrays(model):
    return {k: v.numpy() for k, v in model.state_dict().items()}


@pytest.mark.originals
def test_small_towers_equal_transformers(torch, small):
    model, (image, text) = small
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 24, 24, 3), np.float32)
    params = vit_weights.convert(arrays(model), image, 'clip')
    assert (
        relative(jax.jit(image.apply)(params, x)['features'], image_features(torch, model, x))
        < 1e-4
    )

    ids = rng.integers(0, 58, (4, 12), np.int32)
    ids[:, 0] = 58
    for row, end in enumerate((1, 5, 11, 7)):
        ids[row, end:] = 59  # padded with end tokens, as the original
    params = text_tower.convert(arrays(model), text)
    want = text_features(torch, model, ids)
    assert relative(jax.jit(text.apply)(params, ids), want) < 1e-4
    # What follows the end token counts for nothing, nor does how much of it there is.
    assert relative(jax.jit(text.apply)(params, ids[:2, :6]), want[:2]) < 1e-4
    ids[1, 6:] = 3
    assert relative(jax.jit(text.apply)(params, ids), want) < 1e-4


@pytest.mark.originals
def test_bfloat16_is_near_float32(torch, small):
    model, (image, text) = small
    x = np.random.default_rng(0).standard_normal((3, 24, 24, 3), np.float32)
    params = vit_weights.convert(arrays(model), image, 'clip')
    got = jax.jit(image.apply)(params, jnp.asarray(x, jnp.bfloat16))['features']
    assert got.dtype == jnp.bfloat16
    assert relative(got, image_features(torch, model, x)) < 0.05
    ids = np.array([[58, 4, 9, 59]], np.int32)
    half = text.clone(dtype=jnp.bfloat16)
    got = jax.jit(half.apply)(text_tower.convert(arrays(model), text), ids)
    assert got.dtype == jnp.bfloat16
    assert relative(got, text_features(torch, model, ids)) < 0.05


@pytest.mark.originals
def test_full_vit_b_32_equals_transformers(torch, transformers, tmp_path):
    """The defaults are those of openai/clip-vit-base-patch32, and its files are read."""
    from safetensors.torch import save_file

    torch.manual_seed(0)
    config = transformers.CLIPConfig(text_config={'eos_token_id': 49407, 'bos_token_id': 49406})
    model = transformers.CLIPModel(config).eval()
    extra = {f'{m}_model.embeddings.position_ids': torch.arange(50) for m in ('text', 'vision')}
    save_file(model.state_dict() | extra, tmp_path / 'model.safetensors')  # as older files have
    tensors = read_tensors(tmp_path / 'model.safetensors')
    image, text = VITS['clip_vit_b32'].net(), text_tower.TextTower()
    x = np.random.default_rng(0).standard_normal((1, 224, 224, 3), np.float32)
    got = image.apply(vit_weights.convert(tensors, image, 'clip'), x)['features']
    assert relative(got, image_features(torch, model, x)) < 1e-4
    ids = np.array([[49406, 320, 1125, 539, 49407, 49407]], np.int32)
    got = text.apply(text_tower.convert(tensors, text), ids)
    assert relative(got, text_features(torch, model, ids)) < 1e-4


@pytest.mark.originals
def test_convert_names_what_is_wrong(small):
    model, (image, text) = small
    tensors = arrays(model)
    tensors['vision_model.more'] = tensors.pop('vision_model.embeddings.class_embedding')
    with pytest.raises(
        InputError, match=r'vision transformer \(clip\).*class_embedding.*vision_model\.more'
    ):
        vit_weights.convert(tensors, image, 'clip')
    text_tower.convert(tensors, text)  # the other tower is not looked at
    with pytest.raises(InputError, match=r'\(60, 24\).*\(61, 24\)'):
        text_tower.convert(tensors, text.clone(vocabulary=61))


def test_sizes_that_do_not_fit():
    with pytest.raises(InputError, match='224x224 pixels, got 32x64'):
        jax.eval_shape(
            VITS['clip_vit_b32'].net().init, jax.random.key(0), jnp.zeros((1, 32, 64, 3))
        )
    with pytest.raises(InputError, match='up to 77 tokens, got 78'):
        jax.eval_shape(text_tower.TextTower().init, jax.random.key(0), jnp.zeros((1, 78), int))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """vocab.json and merges.txt of a small vocabulary, laid out as CLIP's."""
    pytest.importorskip('tokenizers', reason='tokenizers reads the vocabularies')
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(b) for b in kept] + [chr(256 + i) for i in range(256 - len(kept))]
    merges = ['l o', 'lo w</w>', 'lo w', 'e r</w>', 'low er</w>', 'o f</w>', 'd o', 'do g</w>']
    words = letters + [c + '</w>' for c in letters] + [m.replace(' ', '') for m in merges]
    words += [tokens.CLIP_START, tokens.CLIP_END]
    path = tmp_path_factory.mktemp('clip')
    (path / 'vocab.json').write_text(json.dumps({w: i for i, w in enumerate(words)}))
    (path / 'merges.txt').write_text('#version: 0.2\n' + '\n'.join(merges) + '\n')
    return path


def test_tokens_of_words_by_hand(folder):
    tok = tokens.clip_tokenizer(folder)
    vocab = json.loads((folder / 'vocab.json').read_text())
    start, end = vocab[tokens.CLIP_START], vocab[tokens.CLIP_END]
    assert tok.pad_token == end
    got = tok.encode(['Low lower', 'a&amp;amp;b', 'low\u2019s \uff4cow', ''])
    names = [
        ['low</w>', 'lower</w>'],
        ['a</w>', '&</w>', 'b</w>'],
        ['low</w>', "'", 's</w>', 'low</w>'],
        [],
    ]
    assert got == [[start, *(vocab[n] for n in row), end] for row in names]
    long = tok.encode(['dog ' * 100])[0]
    assert long == [start, *[vocab['dog</w>']] * 75, end]


@pytest.mark.originals
def test_tokens_equal_transformers(folder, tmp_path, transformers):
    theirs = transformers.CLIPTokenizerFast.from_pretrained(str(folder))
    want = theirs(TEXTS, truncation=True, max_length=77)['input_ids']
    assert tokens.clip_tokenizer(folder).encode(TEXTS) == want
    theirs.save_pretrained(tmp_path)
    assert (tmp_path / 'tokenizer.json').is_file()
    assert tokens.clip_tokenizer(tmp_path).encode(TEXTS) == want
    assert tokens.clip_tokenizer(tmp_path / 'tokenizer.json').encode(TEXTS) == want


def test_wrong_tokenizer_files_are_named(folder, tmp_path):
    with pytest.raises(InputError, match=r'neither tokenizer\.json nor vocab\.json'):
        tokens.clip_tokenizer(tmp_path)
    with pytest.raises(InputError, match=r'no tokenizer file at .*t\.json'):
        tokens.clip_tokenizer(tmp_path / 't.json')
    (tmp_path / 'tokenizer.json').write_text('{"version"')
    with pytest.raises(InputError, match=r'tokenizer\.json is not'):
        tokens.clip_tokenizer(tmp_path)
    (tmp_path / 'tokenizer.json').unlink()
    (tmp_path / 'vocab.json').write_text('{"a": 0, "b": 1}')
    (tmp_path / 'merges.txt').write_text('a c\n')
    with pytest.raises(InputError, match=r'vocab\.json and merges\.txt'):
        tokens.clip_tokenizer(tmp_path)
    (tmp_path / 'merges.txt').write_text('#version: 0.2\n')
    with pytest.raises(InputError, match=r'no token .*startoftext'):
        tokens.clip_tokenizer(tmp_path)


@pytest.fixture(scope='module')
def siglips(tmp_path_factory):
    """tokenizer.json of small vocabularies: a unigram one as SigLIP's, a BPE one as SigLIP 2's."""
    lib = pytest.importorskip('tokenizers', reason='tokenizers reads the vocabularies')
    path = tmp_path_factory.mktemp('siglip')
    words = ['a', 'low', 'photo', 'er', '\u2581', '\u2581a', '\u2581low', '\u2581dog']
    scores = [('</s>', 0.0), ('<unk>', 0.0), *((w, -1.0 - i / 8) for i, w in enumerate(words))]
    plain = lib.Tokenizer(lib.models.Unigram(scores, unk_id=1))
    plain.pre_tokenizer = lib.pre_tokenizers.Metaspace()
    gemma = {
        w: i for i, w in enumerate(['<pad>', '<eos>', '<bos>', '<unk>', *'\u2581dogl.w', 'do'])
    }
    bpe = lib.models.BPE(gemma, [('d', 'o')], unk_token='<unk>', fuse_unk=True)
    second = lib.Tokenizer(bpe)
    second.normalizer = lib.normalizers.Replace(' ', '\u2581')
    for tok, name in ((plain, 'one'), (second, 'two')):
        (path / name).mkdir()
        tok.save(str(path / name / 'tokenizer.json'))
    return path, [w for w, _ in scores], gemma


def test_siglips_tokens_by_hand(siglips):
    path, words, gemma = siglips
    one = tokens.siglip_tokenizer(path / 'one', 6, plain=True)
    names = lambda ids: [words[i] for i in ids]
    got = one.encode([' A  Low, DOG!', '', 'dog ' * 50])
    assert names(got[0]) == ['\u2581a', '\u2581low', '\u2581dog', '</s>']
    assert names(got[1]) == ['</s>'] and names(got[2]) == ['\u2581dog'] * 5 + ['</s>']
    two = tokens.siglip_tokenizer(path / 'two', 6, plain=False)
    assert one.lengths == two.lengths == (6,)
    assert (words[one.pad_token], two.pad_token) == ('</s>', 0)
    got = two.encode(['Dog. o', 'dog ' * 50])
    assert got[0] == [gemma[w] for w in ('do', 'g', '.', '\u2581', 'o', '<eos>')]
    assert got[1] == [gemma[w] for w in ('do', 'g', '\u2581', 'do', 'g', '<eos>')]
    _, filled, _ = next(tokens.in_batches(two, ['do'], 1))
    assert filled.tolist() == [[gemma['do'], gemma['<eos>'], 0, 0, 0, 0]]
    with pytest.raises(InputError, match=r"no token '</s>'"):
        tokens.siglip_tokenizer(path / 'two', plain=True)


@pytest.mark.originals
def test_siglip_2_tokens_equal_transformers(siglips, transformers):
    path, _, gemma = siglips
    theirs = transformers.Siglip2Tokenizer(vocab=gemma, merges=[('d', 'o')])
    two = tokens.siglip_tokenizer(path / 'two', plain=False)
    for text in ('A LOW dog.', 'd o', '', 'Do\ndog \u00dc'):
        want = theirs(text, add_special_tokens=False)['input_ids']
        assert two.encode([text])[0] == [*want, gemma['<eos>']]
