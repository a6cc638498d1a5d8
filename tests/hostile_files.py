"""Good files of every kind that is read, mutations of them, and what may come of reading those.

    python tests/hostile_files.py --seconds=60 [--seed=0] [--kinds=npz,model]

Nothing but InputError, within a time and a memory that are stated here; else exit code 1, and the
file that did it is kept.
"""

import argparse
import io
import json
import pickle
import re
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from anyshot_jax import config as configs
from anyshot_jax.classify.classifier import AnyShotClassifier
from anyshot_jax.data import features, packed
from anyshot_jax.data.readers import descriptions, industrial, mvtec, omniglot, one_shot_runs
from anyshot_jax.encoders.weights import read_tensors
from anyshot_jax.predict.table import Outputs
from anyshot_jax.report import logs
from anyshot_jax.storage import files, npz
from anyshot_jax.types import InputError

SECONDS = 10.0  # that one file may take, on a machine that is busy
MEGABYTES = 600  # that the process may grow by while it reads files of some kilobytes
RNG = np.random.default_rng(0)


class Kind(NamedTuple):
    """A kind of file: its name in a folder, a good one's bytes, and what reads it."""

    name: str
    good: bytes
    read: Callable[[Path], Any]


def of_npz(**arrays: Any) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w') as z:
        for name, content in members.items():
            z.writestr(name, content)
    return out.getvalue()


def png(side: int, mode: str = 'RGB') -> bytes:
    out = io.BytesIO()
    pixels = RNG.integers(0, 256, (side, side, 3)).astype(np.uint8)
    Image.fromarray(pixels).convert(mode).save(out, 'png')
    return out.getvalue()


def pth(legacy: bool) -> bytes:
    """A state dict of two tensors as torch.save writes it, by hand."""
    text = lambda s: b'X' + struct.pack('<I', len(s)) + s
    block = (
        b'(' + text(b'storage') + b'ctorch\nFloatStorage\n' + text(b'0') + text(b'cpu') + b'K\x06'
    )
    view = b'Nt' if legacy else b't'
    tensor = (
        b'ctorch._utils\n_rebuild_tensor_v2\n((' + block[1:] + view + b'QK\x00K\x02K\x03\x86K\x03'
        b'K\x01\x86\x89ccollections\nOrderedDict\n)RtR'
    )
    tree = b'\x80\x02}(' + text(b'a.weight') + tensor + text(b'b') + tensor + b'u.'
    values = np.arange(6, dtype='<f4').tobytes()
    if not legacy:
        return zipped({'m/data.pkl': tree, 'm/byteorder': b'little', 'm/data/0': values})
    heads = (0x1950A86A20F9469CFC6C, 1001, {'little_endian': True})
    before = b''.join(pickle.dumps(h, 2) for h in heads)
    return before + tree + pickle.dumps(['0'], 2) + struct.pack('<q', 6) + values


def safetensors() -> bytes:
    from safetensors.numpy import save

    return save({'a.weight': np.zeros((2, 3), np.float32), 'b': np.arange(4)})


def model(folder: Path) -> bytes:
    x = RNG.normal(size=(6, 4)).astype(np.float32)
    made = AnyShotClassifier(unknown='none').fit(x, ['a', 'a', 'b', 'b', 'c', 'c'])
    made.save(folder / 'good.safetensors')
    return (folder / 'good.safetensors').read_bytes()


def use_model(path: Path) -> None:
    """Everything that a command asks of a model."""
    made = AnyShotClassifier.load(path)
    x = np.ones((2, made.n_features_in_), np.float32)
    answers = made.answer(x)
    assert np.isfinite(answers[0]).all(), 'probabilities that are no numbers'
    made.predict(x), made.suspicion()
    state = [made.false_alarm_, made.support_names_, made.classes_.tolist(), made.descriptions_]
    json.dumps(state, allow_nan=False, ensure_ascii=False).encode()
    made.save(path.with_name('again.safetensors'))


def read_any_npz(path: Path) -> None:
    npz.read_npz(path, 10**8)


def read_features(path: Path) -> None:
    config = configs.defaults('protonet', 'features', 'conv4').data
    config.dir = str(path)
    features.load(config)


def read_packed(path: Path) -> None:
    config = configs.defaults('protonet', 'packed', 'conv4').data
    config.dir = str(path)
    packed.load(config)


def read_listing(path: Path) -> None:
    industrial.read_listing(path.parent)


def read_config(path: Path) -> None:
    configs.from_json(path.read_text(errors='surrogateescape'))


def read_omniglot(path: Path) -> None:
    for name, _, content in omniglot._from_zip(path):
        omniglot.pack(content, name)


def read_runs(path: Path) -> None:
    one_shot_runs.load_runs(path, 28, 'box')


def record(path: Path) -> None:
    with Outputs(path.parent, {'query': 'a'}, False) as outputs:
        outputs.check(path.parent / 'predictions.csv')


def manifest(path: Path) -> None:
    root = path.parent
    for name in ('train/good/0.png', 'test/good/1.png', 'test/dent/2.png'):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    mask = root / 'ground_truth' / 'dent' / '2_mask.png'
    mask.parent.mkdir(parents=True, exist_ok=True)
    mask.touch()
    mvtec.find_items(root, 'group')


def kinds(folder: Path) -> dict[str, Kind]:
    """By name; the folder is written to."""
    label = np.repeat(np.arange(4), 3)
    images = [png(8) for _ in label]
    config = configs.defaults('protonet', 'folder', 'conv4')
    drawings = {
        f'images_background/{a}/character{c:02d}/{c:04d}_{d:02d}.png': png(105, '1')
        for a in ('Latin', 'Greek') for c in (1, 2) for d in (1, 2)
    }  # fmt: skip
    result = {'values': {'5-way 1-shot': {'mean': 0.9, 'ci95': 0.01, 'n': 600}}, 'seeds': 1}
    listing = '\n'.join(
        ('path,split,class,mask,group', 'train/good/0.png,train,good,,a',
         'test/good/1.png,test,good,,b', 'test/dent/2.png,test,dent,ground_truth/dent/2_mask.png,c')
    )  # fmt: skip
    numbers = range(1, 21)
    lines = [f'run01/test/item{i:02d}.png run01/training/class{i:02d}.png' for i in numbers]
    run = {'run01/class_labels.txt': '\n'.join(lines).encode()}
    run |= {
        f'run01/{part}{i:02d}.png': png(105, '1')
        for part in ('test/item', 'training/class')
        for i in numbers
    }
    text = lambda value: json.dumps(value).encode()
    known = {'made_by': 'anyshot_jax.predict', 'settings': {'query': 'a'}, 'files': {'/a': ['0f']}}
    role = np.array(['train', 'train', 'val', 'test'])[label]
    names = np.array(list('abcd'))
    vectors = {'x': RNG.normal(size=(12, 3)), 'y': label, 'attribute': np.eye(4)}
    pack = {'jpeg': np.frombuffer(b''.join(images), np.uint8), 'label': label, 'name': names}
    offset = np.cumsum([0, *map(len, images)])
    steps = b'\n'.join(text({'step': s, 'kind': 'train', 'loss': 1.5}) for s in (10, 20))
    classes = {'classes': [{'name': 'a', 'description': 'b'}]}
    listed = {'classes': [{'name': 'a', 'seen': True}]}
    return {
        'npz': Kind('a.npz', of_npz(a=np.arange(9.0), b=names), read_any_npz),
        'features': Kind('f.npz', of_npz(**vectors, names=names, role=role), read_features),
        'packed': Kind('p.npz', of_npz(**pack, offset=offset), read_packed),
        'torch': Kind('t.pth', pth(False), read_tensors),
        'legacy torch': Kind('t.pth', pth(True), read_tensors),
        'safetensors': Kind('t.safetensors', safetensors(), read_tensors),
        'model': Kind('m.safetensors', model(folder), use_model),
        'classes.json': Kind('classes.json', text(classes), descriptions.descriptions),
        'listing': Kind('classes.json', text(listed), read_listing),
        'manifest': Kind('manifest.csv', listing.encode(), manifest),
        'config.json': Kind('config.json', configs.to_json(config).encode(), read_config),
        'result.json': Kind('result.json', text(result), files.read_json),
        'predictions.json': Kind('predictions.json', text(known), record),
        'metrics.jsonl': Kind('metrics.jsonl', steps, logs.metrics),
        'omniglot': Kind('images_background.zip', zipped(drawings), read_omniglot),
        'one-shot runs': Kind('runs.zip', zipped(run), read_runs),
    }


# Mutations.

HOSTILE: tuple[Any, ...] = (
    None, True, -1, 0, 1, 10**400, 1e308, -1e308, float('nan'), float('inf'), '', '\ud800',
    'x' * 999,        '\x1b[31m', '../../x', [], {}, [[]], [None], {'a': None}, [[[[[[]]]]]],
    'os.system', '<U9999999',
)  # fmt: skip


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


# The loop.


def high_water() -> float:
    """The most megabytes that the process had, since `reset`."""
    text = Path('/proc/self/status').read_text()
    return int(re.search(r'VmHWM:\s+(\d+)', text)[1]) / 1000  # type: ignore[index]


def attack(seconds: float, seed: int, only: str = '') -> tuple[dict[str, int], float]:
    """Reads mutations of all kinds in turn for so long.

    Returns:
      How many of each were read, and by how many megabytes the process grew.
    Raises:
      AssertionError: with the traceback of what was raised instead of InputError, the file, or the
        seconds that one took.
    """
    counts: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter('ignore')
        every = kinds(Path(name))
        chosen = {k: v for k, v in every.items() if not only or k in only.split(',')}
        for key, kind in chosen.items():
            check(key, kind, kind.good, Path(name) / 'good' / key, must_pass=True)
        Path('/proc/self/clear_refs').write_text('5')  # the high-water mark begins anew
        before, until, i = high_water(), time.monotonic() + seconds, 0
        while time.monotonic() < until:
            for number, (key, kind) in enumerate(chosen.items()):
                rng = np.random.default_rng([seed, i, number])
                check(key, kind, mutated(kind.good, rng), Path(name) / key)
                counts[key] = counts.get(key, 0) + 1
            i += 1
        return counts, high_water() - before


def check(key: str, kind: Kind, content: bytes, folder: Path, must_pass: bool = False) -> None:
    """One file: nothing but InputError comes of it, and soon."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / kind.name
    path.write_bytes(content)
    start, raised = time.monotonic(), ''
    try:
        kind.read(path)
    except InputError:
        raised = traceback.format_exc() if must_pass else ''
    except BaseException:
        raised = traceback.format_exc()
    taken = time.monotonic() - start
    if not raised and taken > SECONDS:
        raised = f'took {taken:.1f} s'
    if raised:
        kept = Path(tempfile.mkdtemp(prefix='hostile-')) / kind.name
        kept.write_bytes(content)
        raise AssertionError(f'{key}, {kept} ({len(content):,} bytes):\n{raised}')


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
    parser.add_argument('--seconds', type=float, default=60)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--kinds', default='', help='names, with commas between them')
    args = parser.parse_args()
    try:
        counts, grown = attack(args.seconds, args.seed, args.kinds)
    except AssertionError as e:
        sys.exit(str(e))
    print(json.dumps({'files': counts, 'megabytes': round(grown)}))
    if grown > MEGABYTES:
        sys.exit(f'the process grew by {grown:.0f} MB, more than {MEGABYTES}')


if __name__ == '__main__':
    main()
