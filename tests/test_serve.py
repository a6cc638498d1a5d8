"""The local page's server, asked as a browser does and as an attacker would."""

import contextlib
import http.client
import re
import socket
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from local_server import dots, png, served, stripes

from anyshot_jax.classify.classifier import AnyShotClassifier
from anyshot_jax.data.readers.sources import image_of
from anyshot_jax.serve import command, connection, teaching
from anyshot_jax.serve import uploads as reading
from anyshot_jax.serve.app import FILES
from anyshot_jax.serve.uploads import Limits
from anyshot_jax.types import InputError

pytestmark = pytest.mark.slow

LIMITS = Limits(bytes=100_000, images=3, pixels=100_000, name=30, description=200, classes=4)
EXAMPLES = [*(stripes(i, False) for i in range(3)), *(dots(i) for i in range(2))]
LABELS = ['stripes'] * 3 + ['dots'] * 2


def two_classes() -> AnyShotClassifier:
    return AnyShotClassifier().fit(EXAMPLES, LABELS)


@pytest.fixture(scope='module')
def fitted():
    return two_classes()


@pytest.fixture(scope='module')
def client(fitted):
    """Of a server whose model no test changes."""
    with served(fitted, limits=LIMITS) as client:
        yield client


def files(*images, names=None):
    names = names or [f'{i}.png' for i in range(len(images))]
    return [
        ('images', (name, p if isinstance(p, bytes) else png(p)))
        for name, p in zip(names, images, strict=True)
    ]


def form(**fields):
    """Text fields of a multipart form."""
    return [(key, (None, value)) for key, value in fields.items()]


def error(response, status: int) -> str:
    assert response.status_code == status, response.text
    assert list(response.json()) == ['error']
    return response.json()['error']


# What it gives.


def test_page_loads_nothing_from_elsewhere(client):
    page = client.get('/')
    assert page.headers['content-type'].startswith('text/html')
    assert "default-src 'none'" in page.headers['content-security-policy']
    assert 'unsafe' not in page.headers['content-security-policy']
    linked = re.findall(r'(?:src|href)="([^"#]+)"', page.text)
    assert sorted(linked) == ['/page.css', '/page.js', 'data:,']
    for address in FILES:
        text = client.get(address).text
        assert len(text) > 1000
        for module in re.findall(r"from '([^']+)'", text):
            assert module in FILES
        assert not re.search(r'https?:|innerHTML|outerHTML|insertAdjacent|\beval\b|url\(', text)
    for address in ('/docs', '/redoc', '/openapi.json'):  # these load from elsewhere
        error(client.get(address), 404)


def test_state_and_thumbnails(client, fitted):
    state = client.get('/state').json()
    assert [(c['name'], len(c['images'])) for c in state['classes']] == [
        ('dots', 2), ('stripes', 3)
    ]  # fmt: skip
    assert state['heat'] and state['unknown'] and state['file'] is None
    address = f'/thumbnails/{state["classes"][0]["images"][1]}'
    thumbnail = client.get(address)
    assert thumbnail.headers['content-type'] == 'image/png'
    assert thumbnail.content == png(fitted.support_images_[4])
    for other in ('0' * 32, '..%2f..%2fpage.html', '%2e%2e/page.html', 'page.html'):
        error(client.get(f'/thumbnails/{other}'), 404)


def test_answers_are_the_classifiers(client, fitted):
    asked = [stripes(7, False), dots(8)]
    answers = client.post('/predict', files=files(*asked)).json()
    shares, nearest = fitted.predict_proba(asked), fitted.explain(asked, k=3)
    images = {c['name']: c['images'] for c in client.get('/state').json()['classes']}
    for i, answer in enumerate(answers):
        order = np.argsort(-shares[i])
        assert answer['label'] == fitted.predict(asked)[i]
        assert [c for c, _ in answer['shares']] == list(fitted.classes_[order])
        np.testing.assert_allclose([p for _, p in answer['shares']], shares[i][order], atol=1e-4)
        assert answer['unknown'] == fitted.is_unknown(asked)[i]
        assert [n['name'] for n in answer['nearest']] == [n.name for n in nearest[i]]
        assert all(n['image'] in images[n['label']] for n in answer['nearest'])
        assert answer['heat'].startswith('data:image/jpeg;base64,')
        assert answer['heat'] != answer['image'] and answer['grid'] == [7, 7]
        assert answer['copy'] is False
    assert {a['label'] for a in answers} == {'dots', 'stripes'}


# What it refuses.


@pytest.mark.parametrize(
    ('headers', 'status'),
    [
        ({}, 200),
        ({'Host': 'localhost:PORT', 'Origin': 'http://localhost:PORT'}, 200),
        ({'Host': 'attacker.example:PORT'}, 403),  # a name that leads to 127.0.0.1
        ({'Host': '127.0.0.1'}, 403),
        ({'Host': '127.0.0.1:PORT.attacker.example'}, 403),
        ({'Origin': 'http://attacker.example'}, 403),
        ({'Origin': 'https://127.0.0.1:PORT'}, 403),
        ({'Origin': 'http://127.0.0.1:1'}, 403),
        ({'Origin': 'null'}, 403),
        ({'Origin': None}, 403),  # a change by who knows whom
    ],
)
def test_only_its_own_host_and_origin(client, headers, status):
    port = str(client.base_url.port)
    sent = {k: v and v.replace('PORT', port) for k, v in headers.items()}
    request = client.build_request('POST', '/predict', files=files(dots(1)))
    for key, value in sent.items():
        request.headers.pop(key, None)
        if value is not None:
            request.headers[key] = value
    response = client.send(request)
    assert response.status_code == status, response.text
    assert "frame-ancestors 'none'" in response.headers['content-security-policy']


def test_other_sites_may_link_to_it_and_load_nothing(client):
    def get(site, mode, address='/state'):
        headers = {'sec-fetch-site': site, 'sec-fetch-mode': mode}
        request = client.build_request('GET', address, headers=headers)
        request.headers.pop('origin')
        return client.send(request)

    assert get('same-origin', 'cors').status_code == 200
    assert get('cross-site', 'navigate', '/').status_code == 200
    error(get('cross-site', 'no-cors'), 403)
    error(get('same-site', 'no-cors'), 403)  # another port


def test_two_hosts_at_once_are_refused(client):
    connection = http.client.HTTPConnection('127.0.0.1', client.base_url.port)
    connection.putrequest('GET', '/state', skip_host=True)
    connection.putheader('Host', f'127.0.0.1:{client.base_url.port}')
    connection.putheader('Host', 'attacker.example')
    connection.endheaders()
    assert connection.getresponse().status in (400, 403)
    connection.close()


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it has so many pixels."""
    chunk = lambda kind, data: (
        struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
    )
    head = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    body = chunk(b'IHDR', head) + chunk(b'IDAT', zlib.compress(b'')) + chunk(b'IEND', b'')
    return b'\x89PNG\r\n\x1a\n' + body


def test_bad_uploads_say_what_is_wrong_and_change_nothing(client):
    before = client.get('/state').json()
    post, name = client.post, form(name='x')
    no_boundary = {'content-type': 'multipart/form-data'}
    for address, more in (('/predict', []), ('/classes', name)):
        for uploads, names, said in (
            ((dots(1), b'#!/bin/sh'), ('a.png', 'run.sh'), 'run.sh is not an image'),
            ((png(dots(1))[:99],), ('cut.png',), 'cut.png'),
            ((bomb(100_000, 100_000),), ('bomb.png',), 'bomb.png has 100000 x 100000 pixels'),
            ((bomb(400, 400),), ('bomb.png',), 'more than max_pixels = 100,000'),
            ([dots(1)] * 4, None, 'Too many files'),
        ):
            assert said in error(post(address, files=[*more, *files(*uploads, names=names)]), 400)
        large = post(address, files=[*more, *files(b'0' * 100_001)])
        assert '100,000 bytes' in error(large, 413)
    assert error(post('/predict', files=form(name='x')), 400)
    assert error(post('/predict', content=png(dots(1))), 415)
    assert error(post('/predict', content='--', headers=no_boundary), 400)
    body = b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\nxn--z\r\n--b--\r\n'
    for codec in ('idna', 'punycode', 'utf-16'):  # they fail in ways of their own
        kind = {'content-type': f'multipart/form-data; boundary=b; charset={codec}'}
        assert 'UTF-8' in error(post('/classes', content=body, headers=kind), 415)
    hostile = files(b'', names=['\x1b[2Ja.png'])
    assert error(post('/predict', files=hostile), 400).startswith('[2Ja.png is not')
    assert 'missing' in error(post('/classes', files=[*form(name=' \n'), *files(dots(1))]), 400)
    assert '31' in error(post('/classes', files=[*form(name='n' * 31), *files(dots(1))]), 400)
    assert '201' in error(post('/classes', files=form(name='x', description='d' * 201)), 400)
    assert 'images' in error(post('/classes', files=name), 400)
    assert "'nobody'" in error(post('/remove', files=form(name='nobody')), 400)
    assert '--save' in error(post('/save'), 400)
    error(client.get('/predict'), 405)
    assert client.get('/state').json() == before


def test_bytes_are_counted_without_a_content_length(client):
    """A stream of one long file that never says how long it is."""
    read = 0

    def body():
        nonlocal read
        yield b'--b\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n'
        for _ in range(10_000):
            read += 1
            yield b'0' * 10_000

    kind = {'content-type': 'multipart/form-data; boundary=b'}
    try:
        error(client.post('/predict', content=body(), headers=kind), 413)
    except Exception as e:  # the server hung up while it was sent
        assert type(e).__name__ in ('WriteError', 'ReadError', 'RemoteProtocolError')
    assert read < 10_000


def connected(client) -> socket.socket:
    made = socket.create_connection((client.base_url.host, client.base_url.port), timeout=20)
    made.settimeout(20)
    return made


def test_headers_that_never_end_keep_nobody_out(fitted, monkeypatch):
    """More of them than the server answers at once; each is closed, also after a first answer."""
    monkeypatch.setattr(connection, 'SECONDS', 0.5)
    with served(fitted, limits=LIMITS) as client, contextlib.ExitStack() as held:
        waiting = [held.enter_context(connected(client)) for _ in range(70)]
        for i, one in enumerate(waiting):
            one.sendall(b'GET /state HTTP/1.1\r\nHost' if i % 2 else b'')
        assert [one.recv(1) for one in waiting] == [b''] * 70
        assert client.get('/state').status_code == 200
        host = f'{client.base_url.host}:{client.base_url.port}'.encode()
        again = held.enter_context(connected(client))
        again.sendall(b'GET /state HTTP/1.1\r\nHost: ' + host + b'\r\n\r\n')
        assert again.recv(12) == b'HTTP/1.1 200'
        again.sendall(b'GET')
        while again.recv(65536):
            pass


def test_a_body_that_never_ends_is_refused(fitted):
    with served(fitted, limits=LIMITS._replace(seconds=1)) as client, connected(client) as slow:
        at = f'{client.base_url.host}:{client.base_url.port}'
        head = [f'POST /predict HTTP/1.1\r\nHost: {at}\r\nOrigin: http://{at}\r\n']
        head += ['Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 999\r\n\r\n']
        slow.sendall(''.join(head).encode() + b'--b\r\n')
        assert slow.recv(12) == b'HTTP/1.1 408'


def test_pixels_of_a_request_are_counted(fitted):
    with served(fitted, limits=LIMITS._replace(all_pixels=9000)) as client:
        assert client.post('/predict', files=files(dots(1), dots(2))).status_code == 200
        said = error(client.post('/predict', files=files(dots(1), dots(2), dots(3))), 400)
        assert 'more than 9,000 pixels in one request' in said


def test_others_are_answered_while_an_image_is_unpacked(fitted, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()

    def slow(*args):
        begun.set()
        assert go_on.wait(60)
        return image_of(*args)

    monkeypatch.setattr(reading, 'image_of', slow)
    with served(fitted, limits=LIMITS) as client, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.post, '/predict', files=files(dots(1)))
        try:
            assert begun.wait(60) and client.get('/state', timeout=20).status_code == 200
        finally:
            go_on.set()
        assert answer.result().status_code == 200


# What it changes.


def test_classes_come_and_go_from_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with served(AnyShotClassifier(), limits=LIMITS) as client:
        post = client.post
        assert 'no class' in error(post('/predict', files=files(dots(1))), 400)
        hostile = '<b>../../etc/passwd'
        examples = files(dots(0), dots(1), names=['../../a.png', '<b>.png'])
        state = post('/classes', files=[*form(name=hostile), *examples]).json()
        assert [c['name'] for c in state['classes']] == [hostile]
        for i in range(2):  # to a class that is there by now
            sent = [*form(name='stripes'), *files(stripes(i, False))]
            state = post('/classes', files=sent).json()
        assert [len(c['images']) for c in state['classes']] == [2, 2]
        answers = post('/predict', files=files(dots(5), stripes(5, False))).json()
        assert [a['label'] for a in answers] == [hostile, 'stripes']
        assert answers[0]['nearest'][0]['name'] in ('../../a.png', '<b>.png')
        for name in (hostile, 'stripes'):
            state = post('/remove', files=form(name=name)).json()
        assert state['classes'] == []
        state = post('/classes', files=[*form(name='one'), *files(dots(0))]).json()
        assert [c['name'] for c in state['classes']] == ['one']
    assert list(tmp_path.iterdir()) == []  # no name became a file


def test_a_class_by_its_description():
    model = AnyShotClassifier(text_encoder='tfidf').fit(EXAMPLES, LABELS)
    with served(model, limits=LIMITS) as client:
        sent = form(name='cat', description='a small furry animal')
        state = client.post('/classes', files=sent).json()
        assert state['classes'][0] == {
            'name': 'cat', 'description': 'a small furry animal', 'images': []
        }  # fmt: skip
        [answer] = client.post('/predict', files=files(dots(9))).json()
        assert {c for c, _ in answer['shares']} == {'cat', 'dots', 'stripes'}


def test_a_change_that_fails_changes_nothing():
    """Its text encoder is one of images, which is found when the class is there already."""
    model = AnyShotClassifier(text_encoder='efficientnet_lite0').fit(EXAMPLES, LABELS)
    with served(model, limits=LIMITS) as client:
        before = client.get('/state').json()
        sent = form(name='cat', description='a small furry animal')
        assert 'text' in error(client.post('/classes', files=sent), 400)
        assert client.get('/state').json() == before
        [answer] = client.post('/predict', files=files(dots(9))).json()
        assert answer['label'] == 'dots'


def test_saves_only_where_the_command_line_says(tmp_path):
    path = tmp_path / 'model.safetensors'
    with served(two_classes(), save_to=path, limits=LIMITS) as client:
        assert not path.exists()
        assert client.get('/state').json()['file'] == 'model.safetensors'
        assert client.post('/save').status_code == 200
        assert list(tmp_path.iterdir()) == [path]
        loaded = AnyShotClassifier.load(path)
        [answer] = client.post('/predict', files=files(stripes(9, False))).json()
        assert loaded.predict([stripes(9, False)])[0] == answer['label'] == 'stripes'
        client.post('/remove', files=form(name='dots'))
        assert client.post('/save').status_code == 200  # its own file
        assert list(AnyShotClassifier.load(path).classes_) == ['stripes']
        path.write_bytes(b'somebody else wrote this')
        assert 'move it away' in error(client.post('/save'), 400)
        assert path.read_bytes() == b'somebody else wrote this'


def test_many_at_once():
    with served(two_classes(), limits=LIMITS) as client:

        def one(i: int) -> int:
            if i % 2:
                sent = [*form(name='stripes'), *files(stripes(20 + i, False))]
                return client.post('/classes', files=sent).status_code
            return client.post('/predict', files=files(dots(i))).status_code

        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(one, range(12))) == {200}
        counts = {c['name']: len(c['images']) for c in client.get('/state').json()['classes']}
        assert counts == {'dots': 2, 'stripes': 3 + 6}


def test_an_example_is_forgotten():
    """The model is as if it had never been given; a class ends with its last one."""
    forget = lambda i, name: client.post('/forget', files=form(name=name, image=rows[i]))
    with served(two_classes(), limits=LIMITS) as client:
        state = client.get('/state').json()
        rows = [d for name in ('stripes', 'dots') for c in state['classes'] if c['name'] == name
                for d in c['images']]  # fmt: skip
        state = forget(1, 'stripes').json()
        assert [(c['name'], len(c['images'])) for c in state['classes']] == [
            ('dots', 2), ('stripes', 2)
        ]  # fmt: skip
        assert state['unsaved'] and rows[1] not in state['classes'][1]['images']
        left = AnyShotClassifier().fit(
            [x for i, x in enumerate(EXAMPLES) if i != 1], ['stripes'] * 2 + ['dots'] * 2
        )
        [answer] = client.post('/predict', files=files(stripes(9, True))).json()
        shares = dict(answer['shares'])
        expected = left.predict_proba([stripes(9, True)])[0]
        np.testing.assert_allclose([shares['dots'], shares['stripes']], expected, atol=1e-4)
        assert 'no such example' in error(forget(1, 'stripes'), 400)
        assert 'no such example' in error(forget(0, 'dots'), 400)
        forget(3, 'dots')
        assert [c['name'] for c in forget(4, 'dots').json()['classes']] == ['stripes']
        forget(0, 'stripes')
        assert forget(2, 'stripes').json()['classes'] == []
        assert 'no such example' in error(forget(2, 'stripes'), 400)


@pytest.mark.filterwarnings('ignore:nearly the same class name', 'ignore:among the images')
def test_what_looks_odd_is_counted_and_named(fitted):
    with served(two_classes(), limits=LIMITS) as client:
        assert client.get('/state').json()['notes'] == []
        brighter = np.clip(stripes(1, False).astype(int) + 2, 0, 255).astype(np.uint8)
        plain = np.full((64, 64, 3), 90, np.uint8)
        sent = files(brighter, plain, plain, names=['like.png', 'plain.png', 'again.png'])
        found = client.post('/classes', files=[*form(name='Dots'), *sent]).json()
        assert {n['kind']: (n['number'], n['names']) for n in found['notes']} == {
            'classes of nearly the same name': (1, ["'Dots' and 'dots'"]),
            'copies within a class': (1, ['plain.png and again.png']),
            'examples nearly alike in different classes': (1, ['#1 and like.png']),
        }
        one_colour = [name for kind, name in found['odd'] if 'one colour' in kind]
        assert one_colour == ['plain.png', 'again.png']
        state = client.get('/state').json()
        assert state['notes'] == found['notes'] and 'odd' not in state
        answers = client.post('/predict', files=files(plain, brighter, dots(7))).json()
        assert [a['copy'] for a in answers] == [True, True, False]
        assert 'one colour' in answers[0]['odd'][0] and answers[2]['odd'] == []


def test_examples_are_judged_by_the_others(client, fitted):
    count = fitted.held_out_confusion()
    assert client.get('/state').json()['held_out'] == [np.trace(count), count.sum()]


def test_the_state_is_told_while_a_change_is_made(fitted, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()

    def slow(*args):
        begun.set()
        assert go_on.wait(60)
        raise InputError('in the end it failed')

    monkeypatch.setattr(teaching, 'without', slow)
    with served(fitted, limits=LIMITS) as client, ThreadPoolExecutor(1) as pool:
        before = client.get('/state').json()
        answer = pool.submit(client.post, '/remove', files=form(name='dots'))
        try:
            assert begun.wait(60) and client.get('/state', timeout=20).json() == before
        finally:
            go_on.set()
        assert 'in the end' in error(answer.result(), 400)
        assert client.get('/state').json() == before


def test_numbers_as_classes():
    model = AnyShotClassifier().fit(EXAMPLES[1:4], [1, 1, 2])
    with served(model, limits=LIMITS) as client:
        assert 'numbers' in error(
            client.post('/classes', files=[*form(name='three'), *files(dots(3))]), 400
        )
        state = client.post('/classes', files=[*form(name='3'), *files(dots(3))]).json()
        assert [c['name'] for c in state['classes']] == ['1', '2', '3']
        state = client.post('/remove', files=form(name='2')).json()
        assert [c['name'] for c in state['classes']] == ['1', '3']


# How it starts.


def test_it_listens_on_this_machine_only():
    with command.listen(0) as taken:
        host, port = taken.getsockname()
        assert host == '127.0.0.1'
        with pytest.raises(InputError, match=f'port={port}'):
            command.listen(port)


def test_what_it_starts_with(tmp_path, fitted):
    new, there = tmp_path / 'new.safetensors', tmp_path / 'there.safetensors'
    fitted.save(there)
    assert list(command.classifier(there, '', False).classes_) == ['dots', 'stripes']
    assert command.classifier(None, '', False).encoder == 'efficientnet_lite0'
    assert command.classifier(new, 'resnet18', True).encoder == 'resnet18'
    vectors = AnyShotClassifier().fit(np.eye(4), [0, 0, 1, 1])
    vectors.save(tmp_path / 'vectors.safetensors')
    for path, encoder, may_be_new, said in (
        (new, '', True, '--encoder'),
        (new, '', False, 'new.safetensors'),
        (there, 'resnet18', False, 'leave out --encoder'),
        (tmp_path / 'vectors.safetensors', '', False, 'feature vectors'),
    ):
        with pytest.raises(InputError, match=said):
            command.classifier(path, encoder, may_be_new)


@pytest.mark.parametrize('flags', [['--modle=x'], ['--save'], ['x'], ['--port=99999']])
def test_a_wrong_command_is_one_line(python, flags):
    done = python('-m', 'anyshot_jax.serve', *flags)
    assert done.returncode == 2
    assert done.stderr.startswith('error: ') and done.stderr.count('\n') == 1
    assert done.stdout == ''
