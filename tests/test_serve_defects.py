"""The local page's detector, asked as a browser does: its answers are the estimator's own."""

import re

import numpy as np
import pytest
import tiny_maps
from local_server import served
from test_serve import error, files, form

from anyshot_jax import AnomalyDetector
from anyshot_jax.classify.classifier import AnyShotClassifier
from anyshot_jax.defects import memory_bank
from anyshot_jax.serve import command
from anyshot_jax.serve.uploads import Limits
from anyshot_jax.types import InputError

pytestmark = pytest.mark.slow

LIMITS = Limits(bytes=100_000, images=8, pixels=10_000, held_pixels=3000, name=30, support=24)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(memory_bank, 'load', tiny_maps.net)


def new(**fields) -> AnomalyDetector:
    return AnomalyDetector('tiny', **{'layers': ('stride2', 'stride4'), 'size': 16} | fields)


def grey(x):
    return list(np.repeat(x, 3, -1))


NORMAL = grey(tiny_maps.bright_squares(20, 1)[0])
ASKED = [*grey(tiny_maps.bright_squares(2, 2)[0]), *grey(tiny_maps.bright_squares(2, 3, 90)[0])]
BRIGHT = grey(tiny_maps.bright_squares(6, 3, 15)[0])
DARK = [255 - x for x in grey(tiny_maps.bright_squares(4, 4, 15)[0])]


@pytest.fixture(scope='module')
def classifier():
    """What the page has beside the detector; nothing asks it here."""
    return AnyShotClassifier()


@pytest.fixture
def client(classifier):
    with served(classifier, detector=new(false_alarm=0.1), limits=LIMITS) as client:
        yield client


def learn(client, images=NORMAL, together=8):
    for i in range(0, len(images), together):
        names = [f'good_{i + k}.png' for k in range(len(images[i : i + together]))]
        sent = files(*images[i : i + together], names=names)
        response = client.post('/defects/normal', files=sent)
        assert response.status_code == 200, response.text
    return response.json()


def same(images):
    """The estimator fitted by hand on the same images, in the same groups of eight."""
    found = new(false_alarm=0.1).fit(images[:8])
    for i in range(8, len(images), 8):
        found.add_normal(images[i : i + 8])
    return found


def test_verdicts_are_the_detectors(client):
    assert client.get('/state').json()['first'] == 'defects'
    before = client.get('/defects').json()
    assert before['number'] == 0 and before['false_alarm'] == 0.1 and not before['threshold']
    assert 'no normal image' in error(client.post('/defects/judge', files=files(*ASKED)), 400)
    state = learn(client)
    expected = same(NORMAL)
    assert state['number'] == len(state['normal']) == 20 and state['threshold']
    assert state['promise'] == [f'{expected.promise_}.'] and not state['loose']
    answers = client.post('/defects/judge', files=files(*ASKED)).json()
    for answer, said in zip(answers, expected.judge(ASKED), strict=True):
        assert answer['verdict'] == ('defect' if said.defect else 'normal')
        assert answer['score'] == pytest.approx(said.score, abs=1e-4)
        assert answer['threshold'] == pytest.approx(expected.threshold_, abs=1e-4)
        assert answer['sure'] == pytest.approx(abs(np.log(said.score / said.threshold)), abs=1e-3)
        assert answer['place'] == list(said.place) and answer['type'] == ''
        assert answer['p_value'] == pytest.approx(said.p_value, abs=1e-4)
        assert (answer['image'] != answer['heat']) == (said.score > expected.threshold_ / 2)
        assert answer['heat'].startswith('data:image/jpeg;base64,')
    assert [a['verdict'] for a in answers] == ['normal', 'normal', 'defect', 'defect']
    thumbnail = client.get(f'/defects/images/{state["normal"][0]}')
    assert thumbnail.headers['content-type'] == 'image/jpeg'
    error(client.get(f'/defects/images/{"0" * 32}'), 404)


def test_few_normal_images_promise_little(client):
    one = learn(client, NORMAL[:1])
    assert one['number'] == 1 and not one['threshold'] and 'no threshold' in one['notes'][0]
    [answer] = client.post('/defects/judge', files=files(ASKED[3])).json()
    assert answer['verdict'] == '' and answer['threshold'] is None and answer['sure'] is None
    assert 'two normal images' in error(
        client.post('/defects/types', files=[*form(name='spot'), *files(ASKED[3])]), 400
    )
    few = learn(client, NORMAL[1:4])
    assert few['loose'] and 'loose: 9 or more can keep 10 %' in few['promise'][0]
    assert few['notes'] == []  # it is said once


def test_types_of_defects_come_and_go(client):
    learn(client)
    to_type = lambda name, *images: client.post(
        '/defects/types', files=[*form(name=name), *files(*images)]
    )
    to_type('bright', BRIGHT[0])
    state = to_type('dark', *DARK[:2]).json()
    assert [(t['name'], t['number'], len(t['images'])) for t in state['types']] == [
        ('bright', 1, 1), ('dark', 2, 2)
    ]  # fmt: skip
    asked = [ASKED[0], *BRIGHT[2:4], *DARK[2:]]
    answers = client.post('/defects/judge', files=files(*asked)).json()
    told = same(NORMAL).add_type('bright', BRIGHT[:1]).add_type('dark', DARK[:2]).judge(asked)
    assert [a['type'] for a in answers] == [v.type if v.defect else '' for v in told]
    assert [a['known_type'] for a in answers] == [a['type'] in ('bright', 'dark') for a in answers]
    assert answers[0]['type_probability'] is None and answers[1]['type'] == 'bright'
    assert answers[1]['type_probability'] == pytest.approx(told[1].type_probability, abs=1e-3)
    assert 'another name' in error(to_type('normal', ASKED[2]), 400)
    assert 'missing' in error(to_type(' ', ASKED[2]), 400)
    state = client.post('/defects/remove', files=form(name='bright')).json()
    assert [t['name'] for t in state['types']] == ['dark']
    assert 'load the page again' in error(
        client.post('/defects/remove', files=form(name='bright')), 400
    )
    empty = client.post('/defects/clear').json()
    assert empty['number'] == 0 and empty['types'] == [] and empty['normal'] == []


def test_a_strange_normal_image_is_called_by_its_file(client):
    state = learn(client, [*NORMAL[:15], ASKED[3]])
    assert any(note.startswith('Good_15.png is unlike') for note in state['notes'])


def test_a_normal_image_is_forgotten(client):
    """Also of two files that are called alike: the other one stays, and so says the estimator."""
    client.post('/defects/normal', files=files(*NORMAL[:7], names=['same.png'] * 7))
    state = learn(client, [*NORMAL[7:14], ASKED[3]])
    assert state['number'] == 15 and 'Good_7.png is unlike' in ' '.join(state['notes'])
    forget = lambda address: client.post('/defects/forget', files=form(image=address))
    state = forget(state['normal'][-1]).json()
    state = forget(state['normal'][2]).json()
    assert state['number'] == len(state['normal']) == 13 and state['notes'] == []
    by_hand = new(false_alarm=0.1).fit(NORMAL[:7])
    by_hand.add_normal([*NORMAL[7:14], ASKED[3]])
    by_hand.remove_normal('#14').remove_normal('#2')
    [answer] = client.post('/defects/judge', files=files(ASKED[3])).json()
    assert answer['threshold'] == pytest.approx(by_hand.threshold_, abs=1e-4)
    assert answer['score'] == pytest.approx(by_hand.judge(ASKED[3:])[0].score, abs=1e-4)
    assert 'load the page again' in error(forget('0' * 32), 400)


def test_what_cannot_be_is_refused_and_changes_nothing(client):
    before = learn(client)
    post = client.post
    assert 'run.sh' in error(post('/defects/normal', files=files(b'#!', names=['run.sh'])), 400)
    assert 'no image came' in error(post('/defects/normal', files=form(name='x')), 400)
    too_many = error(post('/defects/normal', files=files(*[np.zeros((20, 20, 3), np.uint8)] * 8)),
                     400)  # fmt: skip
    assert 'more than 3,000 pixels in one request' in too_many
    assert '24 normal images at most' in error(
        post('/defects/normal', files=files(*ASKED, *DARK[:1])), 400
    )
    error(post('/defects/judge', files=files(*ASKED * 3)), 400)
    assert '--save' in error(post('/defects/save'), 400)
    after = client.get('/defects').json()
    assert after == {k: v for k, v in before.items() if k != 'odd'}


def test_saves_and_begins_with_its_file(classifier, tmp_path):
    path = tmp_path / 'parts.safetensors'
    with served(classifier, detector=new(), save_to=path, limits=LIMITS) as client:
        assert 'no normal image' in error(client.post('/defects/save'), 400)
        assert client.get('/state').json()['file'] is None
        state = learn(client)
        assert state['file'] == 'parts.safetensors' and state['unsaved']
        assert client.post('/defects/save').json()['unsaved'] is False
    found = command.detector(path, '', False, False)
    with served(classifier, detector=found, limits=LIMITS) as client:
        state = client.get('/defects').json()
        assert state['number'] == 20 and state['normal'] == []  # the file holds no images
        assert client.post('/defects/judge', files=files(ASKED[3])).json()[0]['verdict'] == 'defect'
    for where, encoder, may_be_new, said in (
        (path, 'resnet18', False, 'leave out --encoder'),
        (tmp_path / 'none.safetensors', '', False, 'none.safetensors'),
    ):
        with pytest.raises(InputError, match=re.escape(said)):
            command.detector(where, encoder, may_be_new, True)
    assert command.detector(None, '', False, False) is None
    assert command.detector(tmp_path / 'n.safetensors', 'tiny', True, True).encoder == 'tiny'


def test_several_products_are_judged_and_not_taught(classifier):
    both = new().fit([*NORMAL[:6], *(255 - x for x in NORMAL[:6])], product=['a'] * 6 + ['b'] * 6)
    with served(classifier, detector=both, limits=LIMITS) as client:
        assert client.get('/defects').json()['products'] == ['a', 'b']
        [answer] = client.post('/defects/judge', files=files(NORMAL[7])).json()
        assert answer['product'] == both.judge([NORMAL[7]])[0].product
        assert 'product=' in error(client.post('/defects/normal', files=files(NORMAL[7])), 400)
