"""AnomalyDetector, from normal images alone: magnetic tiles, and other products with its defaults.

Made by experiments/compare_detector.py, detector_products.py and detector_pace.py, not by
run_rows.py. Frozen EfficientNet-Lite0. Two things were chosen on what is judged here: the margin
of another product on the drawn products, and how much the whole image and what pretraining learnt
count for types on the types of magnetic tiles (notes/defects.md).
"""

from pathlib import Path

import tables


def table(lines, root: Path = tables.ROOT) -> str:
    """Markdown: a paragraph or table for each part that was run."""
    made = [of(lines) for of in (whole, draws, few, types, products, pace)]
    return '\n\n'.join(part for part in made if part) + '\n'


def of_part(lines, part: str) -> list:
    return [line for line in lines if line['part'] == part]


def percent(value: float, digits: int = 1) -> str:
    return f'{100 * value:.{digits}f}'


def mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


def whole(lines) -> str:
    body = []
    for x in (*of_part(lines, 'whole'), *of_part(lines, 'learnt')):
        score = f'worst {x["share"]:.0%} of patches' if x['share'] else 'worst patch'
        if x.get('learnt'):
            score += ', learnt'
        kinds = ', '.join(f'{k} {percent(v)}' for k, v in x['by_type'].items())
        maps = [percent(x[k]) if k in x else tables.NO_VALUE for k in ('pixel', 'pro')]
        alarms = f'{percent(x["false_alarms"])} ({percent(x["expected"], 2)})'
        body.append((score, percent(x['auroc']), *maps, alarms, percent(x['detected']), kinds))
    head = (
        'score', 'image AUROC', 'pixel AUROC', 'PRO', 'false alarms (expected) %', 'found %',
        'AUROC by type',
    )  # fmt: skip
    note = 'Magnetic tiles, 752 normal images, 1 % of false alarms asked; 200 new normal images, '
    return f'{note}377 with a defect, none of a tile that was fitted.\n\n' + tables.markdown(
        head, body
    )


def draws(lines) -> str:
    if not (some := of_part(lines, 'draws')):
        return ''
    new = sum(x['new'] for x in some)
    alarms = sum(x['false_alarms'] for x in some)
    return (
        f'The promise: {len(some)} draws of {some[0]["tiles"]} tiles, one image each, 2,000 '
        f'patches remembered. Of {new:,} normal images of other tiles {alarms} '
        f'({percent(alarms / new, 2)} %) are called defects; '
        f'1 % was asked, {percent(some[0]["expected"], 2)} % are expected at most. Of the defects '
        f'{percent(mean(x["detected"] for x in some))} % are found at that threshold; image AUROC '
        f'{percent(mean(x["auroc"] for x in some))}.'
    )


def few(lines) -> str:
    if not (some := of_part(lines, 'few')):
        return ''
    turns = sorted({x['turns'] for x in some})
    cells = {(x['images'], x['turns']): x for x in some}
    said = lambda x: f'{percent(x["auroc"])} ± {percent(x["half"])}' if x else tables.NO_VALUE
    body = [
        (str(n), *(said(cells.get((n, t))) for t in turns)) for n in sorted({n for n, _ in cells})
    ]
    head = ('normal images', *(f'{t} turned copies each' for t in turns))
    return (
        'Few normal images, of different tiles, 2,000 patches remembered: image AUROC, mean of '
        f'{some[0]["draws"]} draws '
        "with a 95 % interval (Student's t), 100 normal images and 100 defects judged in each.\n\n"
        + tables.markdown(head, body)
    )


def types(lines) -> str:
    if not (some := of_part(lines, 'types')):
        return ''
    body = [
        (
            f'{x["size"]} pixels{", pretrained" if x.get("pretrain") else ""}',
            str(x['shots']),
            f'{percent(x["macro"])} ± {percent(x["half"])}',
            percent(x['micro']),
            percent(x['unknown']),
        )
        for x in some
    ]
    head = ('types of defects', 'examples of each', 'macro', 'micro', 'said to be unknown %')
    return (
        'Right types, per cent (at 384 pixels 5,000 patches remembered), '
        f'{some[0]["draws"]} draws; support and queries are never of one tile, and '
        'a type with no more tiles than examples is left out, as in the table '
        '[magnetic_tile](magnetic_tile.md).\n\n' + tables.markdown(head, body)
    )


def products(lines) -> str:
    body = []
    for x in of_part(lines, 'products'):
        none = [percent(x['of_none'][k][str(x['margin'])]) for k in x['of_none']]
        alarms = f'{percent(x["false_alarms"])} of {x["new"]} ({percent(x["expected"])})'
        body.append(
            (
                f'{x["group"]}, {x["products"]} of {x["fitted"]} normal images',
                f'{percent(x["auroc"])} ({percent(x["worst_auroc"])})', alarms,
                percent(x['worst_false_alarms']), percent(x['detected']), *none,
            )
        )  # fmt: skip
    if not body:
        return ''
    head = (
        'products', 'image AUROC (worst)', 'false alarms % of new images (expected)',
        'of the worst product', 'found %', 'of none: normal %', 'defects %', 'strangers %',
    )  # fmt: skip
    return (
        'Other products, defaults but 5 % of false alarms asked; synthetic defects, but those of '
        'the tiles are true ones. The last columns: what is said to be of no product, of new '
        'normal images, of those with a defect and of strangers (other products of the group; '
        'textures beside the tiles).\n\n' + tables.markdown(head, body)
    )


def pace(lines) -> str:
    said = [
        f'{x["images"]:,} images of 256 pixels: fitted in {x["ms"]} ms of a processor each, of '
        f'which the encoder takes {x["encoder_ms"]} (up to 2,000 are seen again, held out), with '
        f'{x["fit_mb"]} MB over the {x["encoder_mb"]} of the encoder; a verdict with its heat map '
        f'takes {x["heat_map_ms"]} ms of a processor. Other programs ran beside it.'
        for x in of_part(lines, 'many')
    ]
    said += [
        f'Images of {x["size"][0]} x {x["size"][1]} pixels in tiles of {x["tile"]}, '
        f'{x["memory"]:,} patches remembered: {x["peak_mb"]} MB at most, encoder included, '
        f'{x["judge_s"]} s of a processor for a verdict with its heat map; a spot of {x["spot"]} '
        f'pixels is {"" if x["found"] else "not "}found in its place.'
        for x in of_part(lines, 'wide')
    ]
    return '\n\n'.join(said)
