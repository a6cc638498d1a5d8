"""The page of `compare`: a table, a picture of the curves, the line to copy."""

from anyshot_jax.compare.comparison import DEFAULT, Comparison, paired
from anyshot_jax.report import figures
from anyshot_jax.report.page import document, escape, fields, meter, name, note, percent, section
from anyshot_jax.report.page import table as html_table

COLOURS = 6  # of the page's palette


def page(found: Comparison, title: str, settings: dict[str, str]) -> str:
    """The whole page."""
    best = found.best()
    head = (
        f'<header><h1>{name(title)}</h1><p>{escape(found.advice())}</p>'
        f'<pre>from anyshot_jax import AnyShotClassifier\n{escape(best.line)}</pre></header>'
    )
    return document(title, head + ''.join([_table(found), _curves(found), _limits(found),
                    section('settings', 'Settings', fields(settings.items()))]))  # fmt: skip


def _table(found: Comparison) -> str:
    usual = next((r for r in found.rows if r.encoder == DEFAULT), None)
    rows = []
    for r in found.rows:
        against = '&ndash;'
        if usual is not None and r is not usual:
            gain, half = paired(r.right, usual.right)
            against = f'{gain * 100:+.1f} ± {half * 100:.1f}'
        rows.append([
            name(r.encoder), escape(r.head), percent(r.accuracy) + meter(r.accuracy, None),
            f'{r.low * 100:.1f} to {r.high * 100:.1f} %', against,
            f'{found.seconds[r.encoder] * 1e3:.0f} ms', f'<code>{escape(r.line)}</code>',
        ])  # fmt: skip
    columns = ['encoder', 'head', 'held out', '95 %', f'beside {DEFAULT}', 'one image', 'line']
    return section('encoders', 'Encoders and heads', html_table(columns, rows))


def _curves(found: Comparison) -> str:
    drawn = [c for c in found.curves if len(c.shots) > 1]
    if not drawn:
        return section('shots', 'Images a class', note('Too few images a class for a curve.'))
    series = [
        figures.Series(c.encoder, c.shots, c.mean, 1 + i % COLOURS, c.half)
        for i, c in enumerate(drawn)
    ]
    chart = figures.chart(
        series, label='Accuracy over images a class', mark=None, percent=True, axis='images a class'
    )
    said = f'<p>{escape(found.one_more())} Bands: 95 % over draws of the support; head LDA.</p>'
    return section('shots', 'Images a class', chart, figures.key(series), said)


def _limits(found: Comparison) -> str:
    lines = [
        f'{found.images:,} images of {found.classes:,} classes; each was held out once, in one of '
        'five parts. Images that show the same thing twice make every figure too high.'
    ]
    if found.alone:
        lines.append(f'{found.alone:,} classes have one image, which is never asked for.')
    lines += [f'{which} was not compared: {why}' for which, why in found.missing.items()]
    return section('limits', 'What was measured', *(f'<p>{escape(x)}</p>' for x in lines))
