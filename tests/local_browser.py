"""Chromium, and what people give a page in it."""

import csv
import io
import shutil
from base64 import b64encode
from contextlib import contextmanager

import pytest
from local_server import png
from playwright.sync_api import sync_playwright

QUIET = (  # the last: nothing looks for other hosts
    '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-sync',
    '--disable-component-update', '--disable-background-networking',
)  # fmt: skip
# A file dropped on an element, as the browser makes it of one from the desktop.
DROP = """(zone, files) => {
  const data = new DataTransfer();
  for (const [name, text] of files) {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    data.items.add(new File([bytes], name, { type: 'image/png' }));
  }
  for (const kind of ['dragover', 'drop']) {
    const event = { dataTransfer: data, bubbles: true, cancelable: true };
    zone.dispatchEvent(new DragEvent(kind, event));
  }
}"""


@contextmanager
def browser():
    """Chromium; a test is skipped where there is none."""
    found = map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))
    path = next(filter(None, found), None)
    if path is None:
        pytest.skip('no Chromium on this machine')
    with sync_playwright() as p:
        started = p.chromium.launch(executable_path=path, args=[*QUIET])
        yield started
        started.close()


@contextmanager
def pages(chromium):
    """A function that opens a page of a client; at the end nothing has gone wrong in any."""
    errors, opened = [], []

    def open_page(client, **settings):
        page = chromium.new_page(**{'viewport': {'width': 1280, 'height': 900}} | settings)
        page.set_default_timeout(60_000)
        page.on('pageerror', lambda error: errors.append(str(error)))
        page.goto(str(client.base_url))
        opened.append(page)
        return page

    yield open_page
    for page in opened:
        page.close()
    assert errors == []


def zone(page, label):
    """The area for files of that label."""
    return page.locator('.drop').filter(has=page.get_by_label(label, exact=True))


def table_of(page, button):
    """Rows of the CSV file that a button downloads."""
    with page.expect_download() as waiting:
        page.click(button)
    return list(csv.reader(io.StringIO(waiting.value.path().read_text('utf-8'))))


def uploads(*images):
    return [
        {'name': f'{i}.png', 'mimeType': 'image/png', 'buffer': png(x)}
        for i, x in enumerate(images)
    ]


def dropped(**images):
    return [[f'{name}.png', b64encode(png(x)).decode()] for name, x in images.items()]


def drag(page, zone, path) -> None:
    """Drags a file or a folder from the desktop onto an element."""
    zone.scroll_into_view_if_needed()
    box = zone.bounding_box()
    at = {'x': box['x'] + 8, 'y': box['y'] + 8}
    data = {'items': [], 'files': [str(path)], 'dragOperationsMask': 1}
    devtools = page.context.new_cdp_session(page)
    for kind in ('dragEnter', 'dragOver', 'drop'):
        devtools.send('Input.dispatchDragEvent', {'type': kind, **at, 'data': data})
    devtools.detach()
