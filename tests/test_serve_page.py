"""The local page in Chromium: folders, lists that stay short, tables, and what a click mends."""

import csv
import io
import re
import time

import numpy as np
import pytest
from local_browser import DROP, browser, drag, dropped, pages, table_of, uploads, zone
from local_server import dots, png, served, stripes
from playwright.sync_api import expect
from test_serve_browser import fitted

from anyshot_jax.classify.classifier import AnyShotClassifier
from anyshot_jax.predict import defects as predict_defects
from anyshot_jax.predict import table as predict_table

pytestmark = pytest.mark.slow

expect.set_options(timeout=60_000)


@pytest.fixture(scope='module')
def chromium():
    with browser() as found:
        yield found


@pytest.fixture
def open_page(chromium):
    with pages(chromium) as opened:
        yield opened


@pytest.fixture(scope='module')
def taught():
    """A server whose model no test changes."""
    with served(fitted()) as client:
        yield client


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    """A folder as it lies on a disk: two classes, queries, and what is none of these."""
    root = tmp_path_factory.mktemp('disk') / 'types'
    images = {f'noise/{i}.png': dots(i) for i in range(2)}
    images |= {f'stripes/old/{i}.png': stripes(i, True) for i in range(2)}
    images |= {'test/noise/=q.png': dots(7), 'test/stripes/b.png': stripes(8, True)}
    images |= {'@eaDir/noise.png': dots(1), 'loose.png': dots(2)}
    for path, image in images.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(png(image))
    (root / 'notes.txt').write_text('x')
    (root / 'noise' / '.DS_Store').write_text('x')
    (root / 'noise' / 'empty.png').touch()
    return root


@pytest.mark.parametrize('how', ['dragged', 'chosen'])
def test_a_tree_of_folders_is_classes_and_queries(open_page, folders, how):
    with served(AnyShotClassifier()) as client:
        page = open_page(client)
        area = page.locator('#adding .two > div .drop')
        expect(page.locator('#hint')).to_contain_text('No classes yet')
        if how == 'dragged':
            drag(page, area, folders)
        else:
            area.locator('input[webkitdirectory]').set_input_files(folders)
        expect(page.locator('#ask-summary')).to_contain_text(
            '2 of 2 in folders of a class are right'
        )
        expect(page.locator('#message')).to_have_text(
            'Added 4 examples of 2 classes and 2 images to classify.'
        )
        assert [(c['name'], len(c['images'])) for c in client.get('/state').json()['classes']] == [
            ('noise', 2), ('stripes', 2)
        ]  # fmt: skip
        expect(page.locator('#counts li')).to_have_text([
            '2 hidden, system or special files (types/@eaDir/noise.png, types/noise/.DS_Store)',
            '1 empty files (types/noise/empty.png)',
            '1 .txt files not read (types/notes.txt)',
            '1 images beside the class folders (types/loose.png)',
        ])  # fmt: skip
        near = page.locator('.answer .near li').first  # files are called by their paths
        expect(near).to_contain_text(re.compile(r'types/(noise|stripes/old)/\d\.png'))
        head, *rows = table_of(page, '#ask-csv')
        assert tuple(head) == predict_table.COLUMNS
        assert [(r[0], r[1], r[8]) for r in rows] == [
            ('types/test/noise/=q.png', 'noise', 'noise'),
            ('types/test/stripes/b.png', 'stripes', 'stripes'),
        ]
        assert all(0.5 < float(r[2]) <= 1 and r[3] in ('yes', 'no') and r[9] == '' for r in rows)


def test_a_table_is_as_harmless_as_the_commands(open_page, taught):
    page = open_page(taught)
    texts = ['=1+1', ' =x', '-1', '@a', '|', '%0', '\uff1dx', 'a=b', '', 'a"b,c', '\tx', '\rx',
             '\x1b[31m', 'x\u202ey', '\ud800', 'two\nlines', '\u5149']  # fmt: skip
    whole = [t for t in texts if t != '\ud800']
    table = page.evaluate(
        "async (texts) => (await import('/csv.js')).table(texts.map((t) => [t, 0.5]))", whole
    )
    told = page.evaluate(
        "async (codes) => { const { harmless } = await import('/csv.js'); return codes.map("
        "(c) => Array.from(harmless(String.fromCharCode(...c), './'), (x) => x.codePointAt(0))); }",
        [[int.from_bytes(u, 'little') for u in _units(t)] for t in texts],
    )
    assert [''.join(map(chr, t)) for t in told] == [predict_table.harmless(t, './') for t in texts]
    rows = list(csv.reader(io.StringIO(table, newline=''), quoting=csv.QUOTE_NONNUMERIC))
    assert rows == [[t, 0.5] for t in whole]
    heads = page.evaluate(
        "async () => [(await import('/answers.js')).HEAD, (await import('/verdicts.js')).HEAD]"
    )
    assert [*map(tuple, heads)] == [predict_table.COLUMNS, predict_defects.COLUMNS]


def _units(text):
    """UTF-16's units, as JavaScript has them."""
    data = text.encode('utf-16-le', 'surrogatepass')
    return [data[i : i + 2] for i in range(0, len(data), 2)]


def test_what_was_dropped_first_waits_and_a_click_mends(open_page):
    with served(AnyShotClassifier()) as client:
        page = open_page(client)
        expect(page.locator('#hint')).to_be_visible()
        zone(page, 'Images to classify').evaluate(DROP, dropped(q=dots(7)))
        expect(page.locator('#ask-summary')).to_contain_text('1 image waits: there is no class yet')
        expect(page.locator('.answer img')).to_have_count(1)  # small, before any answer
        assert page.locator('.answer img').evaluate('(e) => e.decode().then(() => e.naturalWidth)')
        add = page.get_by_label('Examples of the new class', exact=True)
        page.fill('#name', 'dark')
        add.set_input_files(uploads(stripes(0, True)))
        page.click('text=Add class')
        expect(page.locator('#ask-summary')).to_contain_text('with one class there is nothing to')
        page.fill('#name', 'noise')
        add.set_input_files(uploads(dots(1), dots(2)))
        page.click('text=Add class')
        expect(page.locator('.answer .who').first).to_have_text('noise')
        # It is put where it belongs by a click, and is no question any more.
        page.locator('.answer .mend').get_by_role('button', name='dark').click()
        expect(page.locator('#message')).to_have_text('q.png is now an example of “dark”.')
        expect(page.locator('.answer')).to_have_count(0)
        dark = page.locator('.card').filter(has_text='dark')
        expect(dark.locator('.item')).to_have_count(2)
        # And taken away by another.
        dark.get_by_label('Remove example 2 of dark').focus()
        page.keyboard.press('Enter')
        expect(dark.locator('.item')).to_have_count(1)
        assert [len(c['images']) for c in client.get('/state').json()['classes']] == [1, 2]


def test_an_image_is_enlarged_by_the_keyboard(open_page, taught):
    page = open_page(taught)
    small = page.get_by_label('Enlarge example 1 of noise')
    small.focus()
    page.keyboard.press('Enter')
    shown = page.locator('#large img')
    expect(shown).to_be_visible()
    assert shown.get_attribute('alt') == 'example 1 of noise'
    assert shown.bounding_box()['width'] > 300
    page.keyboard.press('Escape')
    expect(page.locator('#large')).to_be_hidden()
    assert small.evaluate('(e) => e === document.activeElement')
    for image in page.locator('main img').all():
        assert image.get_attribute('alt') is not None


def test_what_waits_moves_and_says_why(open_page, taught):
    held = []
    page = open_page(taught)
    page.route('**/classes', lambda route: held.append(route))
    noise = page.locator('.card').filter(has_text='noise')
    expect(page.locator('#busy')).to_be_hidden()
    with page.expect_request('**/classes'):
        noise.get_by_label('Examples of noise', exact=True).set_input_files(uploads(dots(5)))
    expect(page.locator('#busy')).to_have_text('Adding 1 image to noise')
    bar = page.locator('#busy progress')
    assert bar.get_attribute('value') is None  # it moves
    buttons = page.locator('[data-changes]:visible')
    assert buttons.count() > 5
    for button in buttons.all():
        assert button.is_disabled()
        assert button.get_attribute('title') == 'Wait: Adding 1 image to noise'
    while not held:
        time.sleep(0.05)
    held[0].fulfill(status=400, json={'error': 'it did not fit'})
    expect(page.locator('#message.error')).to_have_text('it did not fit')
    expect(page.locator('#busy')).to_be_hidden()
    expect(noise.get_by_role('button', name='Remove noise')).to_be_enabled()


def answer(i):
    """Of forty: ten least sure, four of no class, the others sure."""
    share = 0.5 + 0.03 * i if i < 10 else 0.95
    best, other = ('noise', 'stripes') if i % 2 else ('stripes', 'noise')
    return {
        'label': best,
        'unknown': i >= 36,
        'shares': [[best, share], [other, 1 - share]],
        'nearest': [],
        'copy': False,
        'heat': None,
        'grid': None,
        'odd': [],
        'image': 'data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7',
    }


def test_forty_answers_stay_short(open_page, taught):
    page = open_page(taught)
    number = iter(range(40))
    page.route('**/predict', lambda route: route.fulfill(json=[answer(next(number))]))
    image = np.zeros((4, 4, 3), np.uint8)
    page.get_by_label('Images to classify', exact=True).set_input_files(uploads(*[image] * 40))
    expect(page.locator('#ask-summary')).to_have_text(
        '40 images: 18 stripes, 18 noise, 4 of no known class. 10 less than 90 % sure.'
    )
    groups = page.locator('#ask-list summary')
    expect(groups).to_have_text(['Of no known class 4', 'Least sure 10', 'noise 13', 'stripes 13'])
    seen = page.locator('.answer:visible')
    expect(seen).to_have_count(4 + 5)
    assert page.evaluate('() => document.documentElement.scrollHeight') < 4500
    unsure = page.locator('#ask-list details').nth(1)
    shares = lambda: [float(t.split()[0]) for t in unsure.locator(
        '.part:nth-child(3)').all_inner_texts()]  # fmt: skip
    assert shares() == pytest.approx([50, 53, 56, 59, 62])
    unsure.get_by_role('button', name='5 more of 5').click()
    assert shares() == pytest.approx([50 + 3 * i for i in range(10)])
    groups.nth(2).click()
    expect(page.locator('#ask-list details').nth(2).locator('.answer:visible')).to_have_count(5)


def test_the_title_is_short_on_a_phone(open_page, tmp_path):
    with served(fitted(), save_to=tmp_path / 'a_long_name_of_a_model.safetensors') as client:
        page = open_page(client, viewport={'width': 375, 'height': 800})
        expect(page.locator('#save')).to_be_visible()
        title = page.locator('#title')
        line = title.evaluate('(e) => parseFloat(getComputedStyle(e).lineHeight)')
        for tab, text in (('Classes', 'Classify images'), ('Defects', 'Find defects')):
            page.get_by_role('tab', name=tab).click()
            expect(title).to_have_text(text)
            assert title.bounding_box()['height'] < 1.5 * line
            assert page.evaluate('() => document.documentElement.scrollWidth') == 375
