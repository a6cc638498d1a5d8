"""The local page in Chromium, started by its command, used as a person would."""

import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from conftest import ROOT
from local_browser import DROP, browser, dropped, uploads
from local_server import dots, served, stripes
from playwright.sync_api import expect

from anyshot_jax.classify.classifier import AnyShotClassifier

pytestmark = pytest.mark.slow

HOSTILE = '<img src=x onerror=alert(1)>'


@pytest.fixture(scope='module')
def chromium():
    with browser() as found:
        yield found


def fitted() -> AnyShotClassifier:
    examples = [*(stripes(i, False) for i in range(3)), *(dots(i) for i in range(2))]
    return AnyShotClassifier(text_encoder='tfidf').fit(examples, ['stripes'] * 3 + ['noise'] * 2)


@pytest.fixture
def model(tmp_path):
    path = tmp_path / 'parts.safetensors'
    fitted().save(path)
    return path


@pytest.fixture
def address(model):
    """Of the command's page, which ends with the test."""
    command = [sys.executable, '-m', 'anyshot_jax.serve', f'--model={model}', '--save', '--port=0']
    env = {**os.environ, 'PYTHONPATH': str(ROOT)}
    with subprocess.Popen(command, env=env, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        try:
            line = server.stdout.readline()
            found = re.search(r'http://127\.0\.0\.1:\d+', line)
            assert found, line
            yield found[0]
        finally:
            server.terminate()
            server.wait(20)


def test_teach_and_ask(chromium, address, model):
    page = chromium.new_page(viewport={'width': 1280, 'height': 900})
    page.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)
    said, asked, dialogs = [], [], []
    page.on('console', lambda message: said.append(message.text))
    page.on('pageerror', lambda error: said.append(str(error)))
    page.on('request', lambda request: asked.append(request.url))
    page.on('dialog', lambda dialog: (dialogs.append(dialog.message), dialog.accept()))
    page.goto(address)
    names = page.locator('#cards h3')
    expect(names).to_have_text(['noise', 'stripes'])
    card = lambda name: page.locator('.card').filter(has=page.get_by_text(name, exact=True))
    expect(card('noise').locator('.item')).to_have_count(2)

    expect(page.locator('#save')).to_be_disabled()  # nothing is new

    # Examples into a class that is there, dropped.
    card('noise').locator('.drop').evaluate(DROP, dropped(a=dots(5), b=dots(6)))
    expect(card('noise').locator('.item')).to_have_count(4)
    # A class that is only said.
    page.fill('#name', 'scratch')
    page.fill('#description', 'a thin bright line')
    page.click('text=Add class')
    expect(names).to_have_text(['noise', 'scratch', 'stripes'])
    expect(card('scratch')).to_contain_text('a thin bright line')

    # Images to classify.
    page.locator('#asking .drop').evaluate(DROP, dropped(first=dots(7), second=stripes(8, True)))
    labels = page.locator('.answer .shares .who:first-child')
    expect(labels).to_have_text(['noise', re.compile('noise|scratch|stripes')])
    # Answers follow the model: a new class, its examples chosen.
    page.fill('#name', HOSTILE)
    page.get_by_label('Examples of the new class', exact=True).set_input_files(
        uploads(*(stripes(i, True) for i in range(2)))
    )
    expect(page.locator('#chosen-count')).to_have_text('2 examples chosen')
    expect(page.locator('#chosen img')).to_have_count(2)
    page.click('text=Add class')
    expect(names).to_have_text([HOSTILE, 'noise', 'scratch', 'stripes'])
    expect(labels).to_have_text(['noise', HOSTILE])
    expect(page.locator('#chosen img')).to_have_count(0)
    first = page.locator('.answer').first
    shares = [float(t.split()[0]) for t in first.locator('.part').all_inner_texts()]
    assert len(shares) == 3
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) <= 100.2
    expect(first.locator('.near li')).to_have_count(3)
    for image in page.locator('main img').all():
        assert image.evaluate('(e) => e.decode().then(() => e.naturalWidth > 0)')
    heat = first.locator('.heat img')
    assert heat.get_attribute('src') != first.locator('.seen img').first.get_attribute('src')
    expect(page.locator('.heat')).to_have_count(2)

    # With its class gone the second is called something else.
    card(HOSTILE).get_by_text('Remove', exact=True).click()
    expect(names).to_have_text(['noise', 'scratch', 'stripes'])
    expect(labels).to_have_text(['noise', re.compile('noise|scratch|stripes')])
    assert len(dialogs) == 1 and dialogs[0].startswith('Remove')  # and none of onerror

    page.click('#save')
    expect(page.locator('#message')).to_have_text('Saved parts.safetensors.')
    assert list(AnyShotClassifier.load(model).classes_) == ['noise', 'scratch', 'stripes']

    for scheme in ('light', 'dark'):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({'width': 400, 'height': 800})
        assert page.evaluate('() => document.documentElement.scrollWidth') == 400
    assert said == []
    assert {re.match(r'data:|blob:|http://[^/]+', url)[0] for url in asked} <= {
        'data:',
        'blob:',
        address,
    }


@pytest.fixture
def here():
    """The address of a page in this process, quicker to have."""
    with served(fitted()) as client:
        yield str(client.base_url).rstrip('/')


def test_what_is_wrong_is_said(chromium, here):
    page = chromium.new_page()
    page.set_default_timeout(60_000)
    page.goto(here)
    noise = page.locator('.card').filter(has_text='noise')
    bad = {'name': '<b>.png', 'mimeType': 'image/png', 'buffer': b'no image'}
    noise.get_by_label('Examples of noise', exact=True).set_input_files([bad, *uploads(dots(5))])
    expect(page.locator('#message.error')).to_contain_text('<b>.png is not an image')
    expect(noise.locator('.item')).to_have_count(3)  # the normal one came in
    page.get_by_label('Images to classify', exact=True).set_input_files([bad])
    expect(page.locator('.answer')).to_contain_text('<b>.png is not an image')
    expect(page.locator('#counts')).to_contain_text('1 files that could not be taken (<b>.png)')
    expect(page.locator('#counts')).to_contain_text('1 files that could not be read (<b>.png)')


def test_files_dropped_while_the_model_loads_are_kept(chromium, here):
    page = chromium.new_page(viewport={'width': 390, 'height': 800})
    page.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)
    held, errors = [], []
    page.on('pageerror', lambda error: errors.append(str(error)))
    page.route('**/state', lambda route: held.append(route))
    with page.expect_request('**/state'):
        page.goto(here)
    page.locator('#asking .drop').evaluate(DROP, dropped(first=dots(7)))
    expect(page.locator('#message')).to_contain_text('still loading')
    held[0].continue_()
    expect(page.locator('.answer .who').first).to_have_text('noise')
    assert errors == []


class Elsewhere(BaseHTTPRequestHandler):
    """An empty page."""

    def do_GET(self):
        self.send_response(200)
        self.send_header('content-type', 'text/html')
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def elsewhere():
    """The address of another server on this machine: Chromium lets its pages ask ours."""
    with HTTPServer(('127.0.0.1', 0), Elsewhere) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f'http://127.0.0.1:{server.server_port}/'
        server.shutdown()
        thread.join()


def test_another_sites_page_gets_nothing(chromium, here, elsewhere):
    """A page of another origin in the same browser: no answer, no change."""
    page = chromium.new_page()
    page.goto(elsewhere)
    tried = page.evaluate(
        """async (address) => {
          const form = new FormData();
          form.append('name', 'noise');
          const post = (mode) => fetch(`${address}/remove`, { method: 'POST', body: form, mode })
            .then((r) => r.type, () => 'refused');
          const read = await fetch(`${address}/state`).then((r) => r.text(), () => 'refused');
          return [await post('cors'), await post('no-cors'), read];
        }""",
        here,
    )
    assert tried == ['refused'] * 3
    page.goto(here)
    expect(page.locator('#cards h3')).to_have_text(['noise', 'stripes'])
