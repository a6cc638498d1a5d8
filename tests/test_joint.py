"""Words and images in one space: who is right when one of them knows nothing, and real towers."""

import numpy as np
import pytest

pytest.importorskip('sklearn')
pytest.importorskip('tokenizers', reason='the extra pretrained')
import jax
import tiny_joint

from anyshot_jax import encoders, export
from anyshot_jax.classify import joint, nearest_mean
from anyshot_jax.classify.classifier import AnyShotClassifier
from anyshot_jax.encoders import catalogue
from anyshot_jax.types import InputError

HOW = {'power': 1.0, 'normalise': True, 'shrink': nearest_mean.SHRINK}


def space(classes=8, dim=64, noise=0.6, wrong=0.0, seed=0):
    """Draws (x, label) of images, and the words' vectors: as CLIP's, the two lie in two cones.

    noise: of images around their class. wrong: how far words are from their class.
    """
    rng = np.random.default_rng(seed)
    unit = lambda a: a / np.linalg.norm(a, axis=-1, keepdims=True)
    centre = unit(rng.normal(size=(classes, dim)))
    gap_x, gap_t = (2 * unit(rng.normal(size=dim)) for _ in range(2))
    texts = unit(centre + wrong * rng.normal(size=(classes, dim)) + gap_t).astype(np.float32)

    def draw(shots):
        label = np.repeat(np.arange(classes), shots)
        spread = noise * unit(rng.normal(size=(len(label), dim)))
        return (centre[label] + spread + gap_x).astype(np.float32), label

    return draw, texts


def accuracy(head, words, x, label):
    score = nearest_mean.scores(head, nearest_mean.place(head.space, x))
    return np.mean(joint.scores(words, score, x).argmax(1) == label)


def fit(x, label, texts):
    return joint.fit(x, label, texts, 20.0, how=HOW, false_alarm=0.05)


def test_without_images_words_alone_decide():
    draw, texts = space()
    x, label = draw(20)
    head, words, found = fit(np.zeros((0, 64), np.float32), np.zeros(0, int), texts)
    want = (x / np.linalg.norm(x, axis=1, keepdims=True)) @ texts.T
    score = joint.scores(words, nearest_mean.scores(head, nearest_mean.place(head.space, x)), x)
    np.testing.assert_allclose(score, want, atol=1e-6)
    assert float(head.temperature) == pytest.approx(1 / 20) and found.rejection is None
    assert accuracy(head, words, x, label) > 0.9


def test_the_mixture_follows_who_knows():
    """Words that say nothing get no share; where images are noise, words have most of it."""
    for noise, wrong, low, high in ((0.5, 30.0, 0.0, 0.3), (6.0, 0.0, 0.6, 1.0)):
        draw, texts = space(noise=noise, wrong=wrong)
        head, words, _ = fit(*draw(8), texts)
        assert low <= 1 - words.share[0] <= high
    # Better than either alone, where both know something.
    draw, texts = space(noise=3.0, wrong=0.12)
    x, label = draw(4)
    asked, truth = draw(100)
    head, words, found = fit(x, label, texts)
    alone = words._replace(weight=np.zeros_like(words.weight))
    only = words._replace(share=np.zeros_like(words.share))
    both = accuracy(head, words, asked, truth)
    assert (
        both > max(accuracy(head, alone, asked, truth), accuracy(head, only, asked, truth)) + 0.02
    )
    score = nearest_mean.scores(head, nearest_mean.place(head.space, asked))
    p = nearest_mean.probabilities(joint.scores(words, score, asked), found.temperature)
    assert abs(p.max(1).mean() - both) < 0.12  # as sure as it is right


def test_classes_of_words_only_stand_beside_those_of_images():
    draw, texts = space(noise=1.5, wrong=0.05)
    x, label = draw(6)
    kept = label < 6  # the last two have no image
    head, words, _ = fit(x[kept], label[kept], texts)
    asked, truth = draw(60)
    score = nearest_mean.scores(head, nearest_mean.place(head.space, asked))
    right = joint.scores(words, score, asked).argmax(1) == truth
    assert right[truth < 6].mean() > 0.6 and right[truth >= 6].mean() > 0.6
    assert (words.share[6:] == 0).all() and (words.share[:6] == words.share[0]).all()


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(catalogue.VITS, 'tiny_siglip', tiny_joint.VIT)
        yield tiny_joint.write(tmp_path_factory.mktemp('tiny') / 'siglip')


def images(num):
    return np.random.default_rng(0).integers(0, 256, (num, 32, 32, 3), np.uint8)


def test_a_classifier_reads_words_with_the_encoders_own_tower(tiny, tmp_path):
    """Probabilities by hand of cosines with the templates' mean; no other text encoder is asked."""
    said = {'cat': '', 'old_dog': 'it barks, a lot.'}
    model = AnyShotClassifier(tiny, text_encoder='none').fit(None, None, said)
    net = encoders.load(tiny)
    x = images(5)
    z = np.asarray(net.apply(net.params, net.preprocess(x)))
    sentences = {
        'cat': [t.format('cat') for t in joint.TEMPLATES],
        'old_dog': [*(t.format('old dog, it barks, a lot') for t in joint.TEMPLATES),
                    'old dog: it barks, a lot.'],
    }  # fmt: skip
    unit = lambda a: a / np.linalg.norm(a, axis=-1, keepdims=True)
    means = [encoders.texts_to_vectors(net.text, s).mean(0) for s in sentences.values()]
    logits = 20 * unit(z) @ unit(np.stack(means)).T
    want = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(model.predict_proba(x), want, atol=1e-5)

    model.add_class('cat', x[:3])
    p = model.predict_proba(x)
    model.save(tmp_path / 'm.safetensors')
    again = AnyShotClassifier.load(tmp_path / 'm.safetensors')
    np.testing.assert_array_equal(again.predict_proba(x), p)
    program = export.exported(model, ('cpu',))
    np.testing.assert_allclose(program.call(x)[0], p, atol=1e-5)
    model.remove_class('old_dog')
    assert model.joint_.texts.shape == (1, 32)


def test_a_damaged_mixture_is_named(tiny, tmp_path):
    from safetensors import safe_open
    from safetensors.numpy import save_file

    model = AnyShotClassifier(tiny).fit(images(4), list('aabb'), {'a': 'x'})
    model.save(tmp_path / 'm.safetensors')
    with safe_open(tmp_path / 'm.safetensors', framework='np') as f:
        arrays = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118
        metadata = f.metadata()
    arrays['joint.weight'] = arrays['joint.weight'][:1].copy()
    save_file(arrays, tmp_path / 'bad.safetensors', metadata)
    with pytest.raises(InputError, match=r'bad\.safetensors: joint\.weight does not fit'):
        AnyShotClassifier.load(tmp_path / 'bad.safetensors')


def test_refine_has_no_words_mixed_in(tiny):
    x = images(8)
    model = AnyShotClassifier(tiny, 'refine').fit(x, list('aaaabbbb'), {'a': 'some text'})
    assert model.joint_ is None
    assert model.predict_proba(x).shape == (8, 2)


def test_both_towers_compute_in_bfloat16(tiny):
    net = encoders.load(tiny, dtype='bfloat16')
    full = encoders.load(tiny)
    a, b = (np.asarray(jax.jit(e.apply)(e.params, e.preprocess(images(2)))) for e in (net, full))
    assert a.dtype == np.float32 and 0 < np.abs(a - b).max() < 0.1 * np.abs(b).max()
    texts = [encoders.texts_to_vectors(e.text, ['a cat.']) for e in (net, full)]
    assert 0 < np.abs(texts[0] - texts[1]).max() < 0.1
