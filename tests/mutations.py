"""Random changes of good files: of bytes, of members inside a zip, of values inside JSON."""

import io
import json
import re
import struct
import zipfile
from typing import Any

import numpy as np

HOSTILE: tuple[Any, ...] = (
    None, True, -1, 0, 1, 10**400, 1e308, -1e308, float('nan'), float('inf'), '', '\ud800',
    'x' * 999, '\x1b[31m', '../../x', [], {}, [[]], [None], {'a': None}, [[[[[[]]]]]],
    'os.system', '<U9999999',
)  # fmt: skip


def zipped(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w') as z:
        for name, content in members.items():
            z.writestr(name, content)
    return out.getvalue()


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """A few changes: of bytes, of members inside a zip, or of values inside JSON."""
    if content[:4] == b'PK\x03\x04' and rng.random() < 0.6:
        with zipfile.ZipFile(io.BytesIO(content)) as z:
            members = {n: z.read(n) for n in z.namelist()}
        name = rng.choice(list(members))
        members[name] = mutated(members[name], rng)
        return zipped(members)
    if rng.random() < 0.5:
        if content[:1] in (b'{', b'['):
            return _in_json(content, rng)
        if found := re.search(rb'^.{8}(\{.*?\}) *(?=[^ ])', content[:9000], re.DOTALL):
            size = struct.unpack('<Q', content[:8])[0]
            if size < len(content):  # a safetensors header
                head = _in_json(content[8 : 8 + size], rng)
                return struct.pack('<Q', len(head)) + head + content[8 + size :]
            del found
    data = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        data = _in_bytes(data, rng)
    return bytes(data)


def _in_json(content: bytes, rng: np.random.Generator) -> bytes:
    try:
        value = json.loads(content)
    except ValueError:
        return content[: rng.integers(0, len(content) + 1)]
    holder, paths = {'root': value}, []

    def walk(parent: Any, key: Any) -> None:
        paths.append((parent, key))
        inner = parent[key]
        for k in (
            inner
            if isinstance(inner, dict)
            else range(len(inner))
            if isinstance(inner, list)
            else ()
        ):
            walk(inner, k)

    walk(holder, 'root')
    for _ in range(rng.integers(1, 3)):
        parent, key = paths[rng.integers(len(paths))]
        try:
            old = parent[key]
            if isinstance(old, str) and old[:1] in '{[' and old:  # JSON inside of JSON
                parent[key] = _in_json(old.encode('utf-8', 'surrogatepass'), rng).decode(
                    errors='ignore'
                )
            elif rng.random() < 0.15:
                del parent[key]
            else:
                parent[key] = HOSTILE[rng.integers(len(HOSTILE))]
        except (LookupError, TypeError):
            continue  # the first change took it away
    text = json.dumps(holder.get('root'))
    if rng.random() < 0.05:
        text = '[' * 100_000 + text
    return text.encode()


def _in_bytes(data: bytearray, rng: np.random.Generator) -> bytearray:
    size = len(data)
    if not size:
        return bytearray(rng.bytes(8))
    a, b = sorted(int(v) for v in rng.integers(0, size + 1, 2))
    match rng.integers(9):
        case 0:
            data[a % size] ^= 1 << int(rng.integers(8))
        case 1:
            data[a % size] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF]))
        case 2:
            del data[a : a + int(rng.integers(1, 9))]
        case 3:
            data[a:a] = data[a : min(b, a + 64)]
        case 4:
            data[a:a] = rng.bytes(int(rng.integers(1, 9)))
        case 5:
            del data[a:]
        case 6:  # a longer or negative number where digits stand
            found = list(re.finditer(rb'\d+', bytes(data)))
            if found:
                spot = found[rng.integers(len(found))]
                new = [b'0', b'-1', b'9' * 18, b'99999999999999999999', b'300000000']
                data[spot.start() : spot.end()] = new[rng.integers(len(new))]
        case 7:
            piece = [b'\xff' * 8, b'\0' * 8, struct.pack('<Q', 2**62), b'}' * 400, b'\x85' * 400]
            data[a : a + 8] = piece[rng.integers(len(piece))]
        case 8:
            data[a:a] = b'[' * 50
    return data
