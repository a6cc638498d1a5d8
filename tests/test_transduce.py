"""Queries answered together, against a slow loop over items and where the truth is known."""

import numpy as np
import pytest

from anyshot_jax.classify import nearest_mean, transduce

NUM, DIM, QUERIES = 3, 12, 60


def task(seed, shares):
    """A head of one example a class (the last class has none), queries and their classes."""
    rng = np.random.default_rng(seed)
    centre = nearest_mean.unit(rng.normal(size=(NUM, DIM)))
    label = rng.choice(NUM, QUERIES, p=shares)
    near = lambda c, noise: nearest_mean.unit(centre[c] + noise * rng.normal(size=(len(c), DIM)))
    means, z = near(np.arange(NUM), 0.6), near(label, 0.25)
    space = nearest_mean.no_support(DIM, 1.0, True)
    head = nearest_mean.plain_head(space, means)._replace(temperature=np.float32(0.1))
    return head, np.array([1, 1, 0]), z, label


@pytest.mark.parametrize('shares', [(1 / 3, 1 / 3, 1 / 3), (0.8, 0.2, 0.0)])
def test_means_and_shares_as_by_a_slow_loop(shares):
    head, count, z, _ = task(0, shares)
    means, share = [np.array(m, np.float64) for m in head.means], np.ones(NUM) / NUM
    cosine = lambda a, b: a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    first = [np.array(m) for m in means]

    def probability(x, temperature):
        odds = [share[c] ** (0.035 / temperature) * np.exp(cosine(x, means[c]) / temperature)
                for c in range(NUM)]  # fmt: skip
        return np.array(odds) / sum(odds)

    for _ in range(transduce.ROUNDS):
        p = np.array([probability(x, 0.035) for x in z])
        share = np.array([(sum(p[:, c]) + 10) / (QUERIES + 10 * NUM) for c in range(NUM)])
        means = [(first[c] + sum(p[i, c] * z[i] for i in range(QUERIES))) / (1 + sum(p[:, c]))
                 for c in range(NUM)]  # fmt: skip
    want = [probability(x, 0.1) for x in z]
    np.testing.assert_allclose(transduce.transduced(head, count, z), want, atol=1e-4)


def test_queries_that_gather_are_answered_better_evenly_spread_or_not():
    """Twenty tasks each: together is right more often than one by one, in both cases."""
    for shares in ((1 / 3, 1 / 3, 1 / 3), (0.7, 0.2, 0.1)):
        gain = []
        for seed in range(20):
            head, count, z, label = task(seed, shares)
            alone = nearest_mean.scores(head, z).argmax(1) == label
            together = transduce.transduced(head, count, z).argmax(1) == label
            gain.append(together.mean() - alone.mean())
        assert np.mean(gain) > 0.01
