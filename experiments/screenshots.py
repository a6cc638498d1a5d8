"""The README's images, from real runs: python experiments/screenshots.py [--workdir=FOLDER]

Draws brushed surfaces, with and without a defect (no data set is needed), runs the quickstart,
`predict` on types of defects and `predict --good` on normal surfaces, drops types and new surfaces
on the page of `serve`, and photographs their pages in Chromium. What a folder has already is not
run again. Needs the extras `app` and `test`.
"""

import argparse
import io
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
SCREENSHOTS = ROOT / 'experiments' / 'screenshots'
SIDE = 256
MOST_BYTES = 300_000
TYPES = ('scratch', 'stain', 'pits')


def surface(rng: np.random.Generator) -> Image.Image:
    """Brushed metal: noise drawn out along one direction, lit from one side."""
    noise = rng.normal(size=(SIDE, 4 * SIDE))
    width = 81
    brushed = np.apply_along_axis(np.convolve, 1, noise, np.ones(width) / width, 'same')
    light = np.linspace(-8, 8, SIDE) * rng.uniform(0.5, 1)
    grey = 150 + 110 * brushed[:, SIDE : 2 * SIDE] + light
    return Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)).convert('RGB')


def damaged(rng: np.random.Generator, kind: str) -> Image.Image:
    """A surface with one defect."""
    image, mask = surface(rng), Image.new('L', (SIDE, SIDE))
    draw, at = ImageDraw.Draw(mask), rng.uniform(60, SIDE - 60, 2)
    if kind == 'scratch':
        steps = rng.normal(0, 3, (12, 2)) + np.array([6, rng.uniform(-5, 5)])
        way = np.cumsum(steps, 0) + at - np.array([36, 0])
        draw.line([tuple(p) for p in way], fill=255, width=2)
    elif kind == 'stain':
        radius = rng.uniform(14, 26, 2)
        draw.ellipse([*(at - radius), *(at + radius)], fill=150)
        mask = mask.filter(ImageFilter.GaussianBlur(5))
    else:
        for x, y in at + rng.normal(0, 14, (9, 2)):
            size = rng.uniform(1.5, 3.5)
            draw.ellipse([x - size, y - size, x + size, y + size], fill=230)
    colour = (235, 235, 240) if kind == 'scratch' else (70, 55, 45)
    return Image.composite(Image.new('RGB', image.size, colour), image, mask)


def draw_surfaces(folder: Path) -> None:
    """good/, types/<type>/ and new/, the same at every call."""
    if folder.exists():
        return
    rng = np.random.default_rng(0)
    drawing = folder.with_name('.drawing')
    shutil.rmtree(drawing, ignore_errors=True)
    made = {f'good/{i:03}': surface(rng) for i in range(120)}
    for kind in TYPES:
        made |= {f'types/{kind}/{i}': damaged(rng, kind) for i in range(5)}
        made |= {f'new/{kind}/{i}': damaged(rng, kind) for i in range(8)}
    made |= {f'new/good/{i}': surface(rng) for i in range(12)}
    for name, image in made.items():
        path = drawing / f'{name}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    drawing.rename(folder)


def run(folder: Path, module: str, *flags: str) -> Path:
    """The report of a command that writes into `folder`, run unless it is there."""
    report = folder / 'report.html'
    if not report.exists():
        subprocess.run(
            [sys.executable, '-m', f'anyshot_jax.{module}', *flags], cwd=ROOT, check=True
        )
    return report


def photograph(browser: Browser, page: Path, name: str, element: str = '', high: int = 820) -> None:
    """experiments/screenshots/<name>.png: the top of a page, or one element of it."""
    tab = browser.new_page(viewport={'width': 1040, 'height': high}, device_scale_factor=1.5)
    tab.goto(page.resolve().as_uri())
    keep(tab.locator(element).first.screenshot() if element else tab.screenshot(), name)
    tab.close()


def keep(shot: bytes, name: str) -> None:
    """Writes a PNG of few colours.

    Raises:
      ValueError: the image is larger than a README should load.
    """
    image = Image.open(io.BytesIO(shot)).convert('RGB').quantize(160, dither=Image.Dither.NONE)
    SCREENSHOTS.mkdir(exist_ok=True)
    path = SCREENSHOTS / f'{name}.png'
    image.save(path, optimize=True)
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f'{path} has {path.stat().st_size:,} bytes, more than {MOST_BYTES:,}')


def drop_on_page(browser: Browser, surfaces: Path, name: str) -> None:
    """experiments/screenshots/<name>.png: the local page after types and surfaces are dropped."""
    command = [sys.executable, '-m', 'anyshot_jax.serve', '--port=0']
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().split()[0]
            tab = browser.new_page(viewport={'width': 1040, 'height': 880}, device_scale_factor=1.5)
            tab.set_default_timeout(120_000)
            tab.goto(address)
            choose = lambda label, what: tab.get_by_label(label, exact=True).set_input_files(what)
            choose('Folders of classes: a folder', surfaces / 'types')
            tab.locator('.card').nth(len(TYPES) - 1).wait_for()
            tab.reload()  # as it looks from the second visit on
            tab.locator('.card').first.wait_for()
            choose('Images to classify', [surfaces / 'new' / kind / '0.png' for kind in TYPES])
            tab.locator('.mend').nth(len(TYPES) - 1).wait_for()
            keep(tab.screenshot(), name)
            tab.close()
        finally:
            server.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
    parser.add_argument('--workdir', type=Path, default=ROOT / 'runs' / 'screenshots')
    folder = parser.parse_args().workdir.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    draw_surfaces(folder / 'surfaces')
    surfaces = folder / 'surfaces'
    training = run(
        folder / 'quickstart', 'main', '--config=quickstart', f'--workdir={folder / "quickstart"}'
    )
    query = f'--query={surfaces / "new"}'
    defects = run(
        folder / 'defects', 'predict', f'--good={surfaces / "good"}',
        f'--types={surfaces / "types"}', query, f'--out={folder / "defects"}',
    )  # fmt: skip
    answers = run(
        folder / 'answers', 'predict', f'--support={surfaces / "types"}', query,
        f'--out={folder / "answers"}',
    )  # fmt: skip
    chromium = shutil.which('chromium') or shutil.which('google-chrome')
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=['--no-sandbox'])
        photograph(browser, training, 'quickstart')
        photograph(browser, training, 'map', '#map')
        photograph(browser, defects, 'defects', high=1100)
        photograph(browser, answers, 'answers')
        drop_on_page(browser, surfaces, 'page')
        browser.close()


if __name__ == '__main__':
    main()
