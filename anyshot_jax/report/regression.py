"""The part of the page that shows a net before and after it has adapted to a function."""

import jax
import numpy as np
from markupsafe import Markup
from ml_collections import ConfigDict

from anyshot_jax.episodes.sampling import sample_function
from anyshot_jax.report import charts
from anyshot_jax.report.page import paragraph, section
from anyshot_jax.report.subject import Subject
from anyshot_jax.types import Method, Sinusoids, TrainState

DRAWN, POINTS = 4, 200  # functions, and points of their curves


def parts(subject: Subject) -> list[Markup]:
    """A few functions of the test."""
    s = subject
    return [functions(s.method, s.state, s.data.functions['test'], s.config)]


def functions(method: Method, state: TrainState, test: Sinusoids, config: ConfigDict) -> Markup:
    """A few test functions: the truth, the points given, and the net after steps of descent."""
    steps = tuple(config.method.eval_steps)
    shown = sorted({0, 1, max(steps)} & set(steps))
    assert method.predict
    ask = jax.jit(method.predict)
    drawn = []
    for number in range(DRAWN):
        shots = config.eval.tasks[number % len(config.eval.tasks)][1]
        key = jax.random.fold_in(jax.random.key(int(config.seed)), number)
        episode = jax.tree.map(np.asarray, sample_function(key, test, shots, POINTS))
        answers = np.nan_to_num(np.asarray(ask(state, episode))[..., 0])
        order = episode.x_q[:, 0].argsort()
        x, truth = episode.x_q[order, 0].tolist(), episode.y_q[order, 0]
        series = [charts.Series('the function', x, truth.tolist(), 0)]
        for colour, n in zip((2, 3, 1), shown, strict=False):
            name = f'after {n} step{"" if n == 1 else "s"}'
            series.append(charts.Series(name, x, answers[steps.index(n), order].tolist(), colour))
        given = (episode.x_s[:, 0].tolist(), episode.y_s[:, 0].tolist())
        series.append(charts.Series('points given', *given, 4, joined=False))
        errors = np.mean((answers - episode.y_q[None, :, 0]) ** 2, axis=1)
        said = ', '.join(f'{errors[steps.index(n)]:.3f} after {n}' for n in shown)
        label = f'Test function {number + 1} and the net; mean squared error {said} steps.'
        svg = charts.lines(series, label=label, mark=None, percent=False, axis='x')
        caption = f'{shots} points: mean squared error {said} steps'
        drawn.append(charts.figure(caption, charts.key(series), svg))
    intro = (
        'Test functions and what the net makes of them: as training left it (0 steps), and after '
        'steps of gradient descent on the points given.'
    )
    return section(
        'functions', 'Before and after adapting', paragraph(intro), charts.side_by_side(drawn)
    )
