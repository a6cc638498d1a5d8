"""iMAML's gradient becomes the exact one as its inner loop and conjugate gradient converge."""

import jax
import jax.numpy as jnp
import pytest
from tiny_tasks import Case, task_loss, worst

from anyshot_jax.types import InputError

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def exact(case, steps):
    """The same proximal descent, differentiated step by step."""
    episode = jax.tree.map(lambda a: a[0], case.batch)

    def proximal(p, start):
        gap = jax.tree.map(lambda a, b: jnp.sum((a - b) ** 2), p, start)
        pull = case.strength / 2 * sum(jax.tree.leaves(gap))
        return task_loss(p, episode.x_s, episode.y_s) + pull

    def outer(start):
        def step(p, _):
            grads = jax.grad(proximal)(p, start)
            return jax.tree.map(lambda p, g: p - 0.003 * g, p, grads), None

        end, _ = jax.lax.scan(step, start, length=steps)
        return task_loss(end, episode.x_q, episode.y_q)

    return jax.jit(jax.grad(outer))(case.state.params)


def case_of(**fields):
    # So strong a pull that the minimum is not on a kink of a ReLU, where no gradient is exact.
    fields = {'strength': 200.0, 'inner_lr': 0.003, 'batch_norm': 'transductive', **fields}
    case = Case('imaml', tasks=1, **fields)
    case.strength = fields['strength']
    return case


def test_gradient_is_the_exact_one_in_the_limit():
    errors = {}
    want = exact(case_of(), 200)
    for steps, cg in ((2, 20), (200, 1), (200, 20)):
        grads = case_of(inner_steps=steps, cg_steps=cg).grads()
        errors[steps, cg] = worst(grads, want)
    assert errors[200, 20] < 1e-6, errors
    assert errors[200, 20] < 1e-2 * min(errors[200, 1], errors[2, 20]), errors


def test_tasks_under_vmap_are_task_by_task():
    fields = {'inner_steps': 20, 'cg_steps': 5, 'inner_lr': 0.05}
    want = Case('imaml', tasks=3, task_chunk=1, **fields).grads()
    assert worst(Case('imaml', tasks=3, task_chunk=3, **fields).grads(), want) < 1e-10


def test_memory_does_not_depend_on_the_inner_steps():
    def temporaries(steps):
        case = case_of(inner_steps=steps)
        lowered = type(case).update.lower(case, case.state.params)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    assert temporaries(40) == temporaries(4)


@pytest.mark.parametrize(
    ('field', 'least'), [('strength', '> 0'), ('cg_steps', '>= 1'), ('inner_steps', '>= 1')]
)
def test_what_can_not_be_used_is_refused(field, least):
    with pytest.raises(InputError, match=rf'config\.method\.{field}=0(\.0)? must be {least}'):
        case_of(**{field: 0.0 if field == 'strength' else 0})
