"""Items of a page as images: PNG and JPEG in the page itself, bars for vectors."""

import base64
import io

import numpy as np
from markupsafe import Markup
from PIL import Image

from anyshot_jax.report.page import html

LARGEST = 72  # pixels of a thumbnail; smaller items are enlarged by the browser


def png(item: np.ndarray, most: int = LARGEST) -> str:
    """A data URI of an image [H, W, C], at most `most` pixels high and wide."""
    if item.dtype != np.uint8:
        low, high = float(item.min()), float(item.max())
        item = ((item - low) * (255 / (high - low or 1))).astype(np.uint8)
    image = Image.fromarray(item[..., 0] if item.shape[-1] == 1 else item)
    if max(image.size) > most:
        image.thumbnail((most, most), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    image.save(data, 'png', optimize=True)
    return 'data:image/png;base64,' + base64.b64encode(data.getvalue()).decode()


def item(x: np.ndarray, alt: str) -> Markup:
    """An item as the page shows it: an image, or for a vector the bars of its first numbers."""
    if x.ndim == 3 and x.shape[-1] in (1, 3):
        small = ' small' if max(x.shape[:2]) < LARGEST else ''
        return html(
            '<img class="item{{ small }}" src="{{ source }}" alt="{{ alt }}">',
            small=small, source=png(x), alt=alt,
        )  # fmt: skip
    values = np.nan_to_num(np.asarray(x, np.float64).reshape(-1)[:16])
    unit = 20 / (abs(values).max() or 1)
    bars = [(i * 3, f'{20 - max(v, 0):.1f}', f'{abs(v):.1f}') for i, v in enumerate(values * unit)]
    return html(
        '<svg class="item bars" viewBox="-1 0 49 40" role="img" aria-label="{{ alt }}">'
        '<path d="M-1 20H48"/>{% for x, y, high in bars %}'
        '<rect x="{{ x }}" y="{{ y }}" width="2" height="{{ high }}"/>{% endfor %}</svg>',
        alt=alt, bars=bars,
    )  # fmt: skip


def photo(x: np.ndarray, alt: str) -> Markup:
    """An image [H, W, 3] uint8 as JPEG: a fifth of PNG's bytes, where there are hundreds."""
    data = io.BytesIO()
    Image.fromarray(x).save(data, 'jpeg', quality=88)
    source = 'data:image/jpeg;base64,' + base64.b64encode(data.getvalue()).decode()
    return html('<img class="item" src="{{ source }}" alt="{{ alt }}">', source=source, alt=alt)
