"""The local page's detector in Chromium."""

import json

import pytest
import tiny_maps
from local_browser import DROP, browser, drag, dropped, pages, table_of, uploads, zone
from local_server import png, served
from playwright.sync_api import expect
from test_serve_defects import ASKED, BRIGHT, NORMAL, new

from anyshot_jax.classify.classifier import AnyShotClassifier
from anyshot_jax.defects import memory_bank

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


def spot_of(*normal):
    """A bright spot that a detector takes for a defect of its own product."""
    told = new(false_alarm=0.1).fit(normal[0])
    for more in normal[1:]:
        told.add_normal(more)
    told.add_type('spot', BRIGHT[:1])
    return next(x for x, v in zip(BRIGHT[1:], told.judge(BRIGHT[1:]), strict=True)
                if v.product is not None and v.type == 'spot')  # fmt: skip


def test_normal_images_then_verdicts(open_page, tmp_path, monkeypatch):
    monkeypatch.setattr(memory_bank, 'load', tiny_maps.net)
    path, spot = tmp_path / 'parts.safetensors', spot_of(NORMAL[:16], NORMAL[16:])
    with served(AnyShotClassifier(), detector=new(false_alarm=0.1), save_to=path) as client:
        page = open_page(client)
        expect(page.locator('#title')).to_have_text('Find defects')
        expect(page.locator('#promise')).to_contain_text(
            'For 10 % of false alarms it takes 9 normal'
        )
        zone(page, 'Images to judge').evaluate(DROP, dropped(fine=ASKED[0], bright=spot))
        expect(page.locator('#judge-summary')).to_contain_text('2 images wait: no normal image')
        page.get_by_label('Normal images', exact=True).set_input_files(uploads(*NORMAL))
        expect(page.locator('#promise')).to_contain_text(
            'at most 9.52 % are expected to be called a defect (10 % was asked), going by 20'
        )
        expect(page.locator('.answer:visible h3')).to_have_text(['normal', 'defect'])
        expect(page.locator('#judge-summary')).to_have_text('2 images: 1 with a defect, 1 normal.')
        expect(page.locator('#normal-strip .item')).to_have_count(20)
        heat = page.get_by_label('Enlarge how unlike normal images bright.png is')
        heat.click()
        expect(page.locator('#large img')).to_be_visible()
        page.keyboard.press('Escape')
        # A type from one example.
        page.fill('#kind-name', 'bright spot')
        page.get_by_label('Examples of the new type', exact=True).set_input_files(
            uploads(BRIGHT[0])
        )
        page.click('text=Add type')
        second = page.locator('.answer').nth(1)
        expect(second).to_contain_text('bright spot, 100 % among the known types')
        _, *rows = table_of(page, '#judge-csv')
        assert [(r[0], r[3], r[6]) for r in rows] == [
            ('fine.png', 'normal', ''), ('bright.png', 'defect', 'bright spot')
        ]  # fmt: skip
        [told] = client.post('/defects/judge', files=[('images', ('b', png(spot)))]).json()
        assert rows[1][1:3] == [json.dumps(told['score']), json.dumps(told['threshold'])]
        # A false alarm is learnt by a click.
        second.locator('.mend').get_by_role('button', name='normal').click()
        expect(page.locator('#message')).to_have_text('bright.png is now one of the normal images.')
        expect(page.locator('#normal-count')).to_have_text('21')
        expect(page.locator('.answer:visible')).to_have_count(1)
        page.get_by_label('Remove normal image 3').click(force=True)
        expect(page.locator('#message')).to_have_text(
            'A normal image was removed; the threshold follows.'
        )
        expect(page.locator('#normal-count')).to_have_text('20')
        page.click('#save')
        expect(page.locator('#message')).to_have_text('Saved parts.safetensors.')
        assert path.stat().st_size > 1000


def test_a_folder_of_good_and_test_images(open_page, tmp_path, monkeypatch):
    monkeypatch.setattr(memory_bank, 'load', tiny_maps.net)
    images = {f'train/good/{i}.png': x for i, x in enumerate(NORMAL[:12])}
    images |= {'test/good/0.png': ASKED[0], 'test/spot/0.png': spot_of(NORMAL[:12])}
    images |= {'types/spot/0.png': BRIGHT[0], 'ground_truth/spot/0.png': BRIGHT[1]}
    for path, image in images.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(png(image))
    with served(AnyShotClassifier(), detector=new(false_alarm=0.1)) as client:
        page = open_page(client)
        drag(page, zone(page, 'Normal images'), tmp_path)
        expect(page.locator('#judge-summary')).to_have_text(
            '2 images: 1 with a defect (1 spot), 1 normal. '
            'Called a defect: 0 of 1 in folders of normal images, 1 of 1 in the others.'
        )
        expect(page.locator('#message')).to_have_text('Learned 12 normal images; judging 2 images.')
        expect(page.locator('#counts li')).to_have_count(1)
        expect(page.locator('#counts')).to_contain_text('1 images in folders that are not good')
