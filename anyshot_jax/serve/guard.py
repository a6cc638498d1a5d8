"""Guards before the app: who may ask, how much may be sent, and what a browser may do."""

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.exceptions import HTTPException

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = (
    (b'content-security-policy', POLICY.encode()),
    (b'x-content-type-options', b'nosniff'),
    (b'x-frame-options', b'DENY'),
    (b'referrer-policy', b'no-referrer'),
    (b'cross-origin-resource-policy', b'same-origin'),
    (b'cross-origin-opener-policy', b'same-origin'),
)


class Guard:
    """ASGI middleware. Refusals are JSON, {"error": what to do}.

    403 unless the Host is 127.0.0.1 or localhost with the server's port (a name that an attacker
    lets point here is another host), and unless the Origin is the same: it has to be there where
    something changes, since browsers always send it then. Loads by other sites' pages, which send
    no Origin, are told by Sec-Fetch-Site. 413 once a body is longer than `max_bytes`, counted
    while it comes, whatever its Content-Length says; 408 once it takes longer than `seconds`.
    """

    def __init__(self, app: Callable, port: int, max_bytes: int, seconds: float):
        self.app, self.max_bytes, self.seconds = app, max_bytes, seconds
        # Browsers leave out the port that http has by itself.
        hosts = [f'{name}{at}' for name in ('127.0.0.1', 'localhost') for at in _ports(port)]
        self.hosts = frozenset(hosts)
        self.origins = frozenset(f'http://{host}' for host in hosts)

    async def __call__(self, scope: MutableMapping, receive: Receive, send: Send) -> None:
        if scope['type'] != 'http':  # no web sockets here
            return

        async def with_headers(message: Message) -> None:
            if message['type'] == 'http.response.start':
                message = {**message, 'headers': [*message.get('headers', ()), *HEADERS]}
            await send(message)

        if reason := self._refusal(scope):
            await _answer(with_headers, 403, reason)
            return
        too_large = f'more than {self.max_bytes:,} bytes in one request: send fewer images at once'
        length = _header(scope, b'content-length')
        if length is not None and not (length.isdigit() and int(length) <= self.max_bytes):
            await _answer(with_headers, 413, too_large)
            return
        read, whole, until = 0, False, asyncio.get_running_loop().time() + self.seconds
        too_slow = f'the request took longer than {self.seconds:g} s to arrive'

        async def counted() -> Message:
            nonlocal read, whole
            if whole:  # what may still come is that the browser goes away
                return await receive()
            try:
                async with asyncio.timeout_at(until):
                    message = await receive()
            except TimeoutError as e:
                raise HTTPException(408, too_slow, {'connection': 'close'}) from e
            read += len(message.get('body', b''))
            whole = not message.get('more_body', False)
            if read > self.max_bytes:
                raise HTTPException(413, too_large, {'connection': 'close'})
            return message

        await self.app(scope, counted, with_headers)

    def _refusal(self, scope: MutableMapping) -> str:
        """Why the request isn't answered; '' if it is."""
        host, origin = _header(scope, b'host'), _header(scope, b'origin')
        if host not in self.hosts:
            return f'this server answers only as {" or ".join(sorted(self.origins))}'
        changes = scope['method'] not in ('GET', 'HEAD')
        if origin not in self.origins and (origin is not None or changes):
            return 'only the page of this server may ask it: other origins, or none, are refused'
        # A link may lead here from anywhere, a page elsewhere may load nothing.
        site, mode = _header(scope, b'sec-fetch-site'), _header(scope, b'sec-fetch-mode')
        if site not in (None, 'same-origin', 'none') and (changes or mode != 'navigate'):
            return 'only the page of this server may load from it'
        return ''


def _ports(port: int) -> list[str]:
    return [f':{port}', ''] if port == 80 else [f':{port}']


def _header(scope: MutableMapping, name: bytes) -> str | None:
    """The header's value; None where it is missing, '' (which nothing allows) where it is twice."""
    found = [value for key, value in scope['headers'] if key == name]
    return None if not found else found[0].decode('latin-1') if len(found) == 1 else ''


async def _answer(send: Send, status: int, text: str) -> None:
    body = json.dumps({'error': text}).encode()
    length = str(len(body)).encode()
    headers = [(b'content-type', b'application/json'), (b'content-length', length)]
    # What may still come of the body is not read.
    headers.append((b'connection', b'close'))
    await send({'type': 'http.response.start', 'status': status, 'headers': headers})
    await send({'type': 'http.response.body', 'body': body})
