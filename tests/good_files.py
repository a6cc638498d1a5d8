"""A good file of every kind that is read, and what reads it."""

import io
import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tiny_maps
from mutations import zipped
from PIL import Image

from anyshot_jax import AnomalyDetector, AnyShotClassifier
from anyshot_jax import config as configs
from anyshot_jax.data import features, packed
from anyshot_jax.data.readers import (
    descriptions,
    file_size,
    images,
    industrial,
    manifest,
    masks,
    mvtec,
    omniglot,
    one_shot_runs,
)
from anyshot_jax.defects import memory_bank
from anyshot_jax.encoders.weights import read_tensors
from anyshot_jax.predict.table import Outputs
from anyshot_jax.report import logs
from anyshot_jax.storage import files, npz

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


def png(side: int, mode: str = 'RGB', kind: str = 'png', **how: Any) -> bytes:
    out = io.BytesIO()
    pixels = RNG.integers(0, 256, (side, side, 3)).astype(np.uint8)
    Image.fromarray(pixels).convert(mode).save(out, kind, **how)
    return out.getvalue()


def mask() -> bytes:
    out = io.BytesIO()
    np.save(out, np.eye(9, dtype=np.float32))
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


def detector(folder: Path) -> bytes:
    memory_bank.load = tiny_maps.net  # a net of one convolution
    made = AnomalyDetector('tiny', layers=('stride2', 'stride4'), size=16)
    made.fit(tiny_maps.bright_squares(12, 1)[0]).save(folder / 'good.safetensors')
    return (folder / 'good.safetensors').read_bytes()


def use_detector(path: Path) -> None:
    """Everything that a command asks of a detector."""
    made = AnomalyDetector.load(path)
    x = tiny_maps.bright_squares(2, 2)[0]
    assert np.isfinite(made.score_samples(x)).all(), 'scores that are no numbers'
    made.predict(x), made.explain(x[0]), made.heat_map(x[0])
    made.save(path.with_name('again.safetensors'))


def read_image(path: Path) -> None:
    images.read_image(file_size.file_content(path, 100_000), 8, 3, 100_000, str(path))


def read_mask(path: Path) -> None:
    masks.read([path], 100_000)


def classes_by_list(path: Path) -> None:
    root = path.parent
    for name in ('images/a.png', 'images/b.png', 'labels/a.txt'):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).touch()
    manifest.find_tree(root)


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


def read_manifest(path: Path) -> None:
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
    boxes = {
        'categories': [{'id': 1, 'name': 'a'}, {'id': 2, 'name': 'b'}],
        'images': [{'id': i, 'file_name': f'images/{c}.png'} for i, c in enumerate('ab')],
        'annotations': [{'image_id': i, 'category_id': i + 1} for i in (0, 1)],
    }
    table = b'path,label\nimages/a.png,x\nimages/b.png,y\n'
    drawn = {
        f'image {kind}': Kind(f'a.{kind}', png(20, mode, kind, **how), read_image)
        for kind, mode, how in (
            ('png', 'RGBA', {}), ('jpeg', 'RGB', {'progressive': True}), ('gif', 'P', {}),
            ('tiff', 'I;16', {'compression': 'tiff_deflate'}), ('bmp', 'P', {}),
            ('webp', 'RGB', {}),
        )
    }  # fmt: skip
    return drawn | {
        'detector': Kind('d.safetensors', detector(folder), use_detector),
        'mask': Kind('a.npy', mask(), read_mask),
        'labels.csv': Kind('labels.csv', table, classes_by_list),
        'COCO': Kind('_annotations.coco.json', text(boxes), classes_by_list),
        'YOLO': Kind('data.yaml', b'nc: 2\nnames: [a, b]\n', classes_by_list),
        'npz': Kind('a.npz', of_npz(a=np.arange(9.0), b=names), read_any_npz),
        'features': Kind('f.npz', of_npz(**vectors, names=names, role=role), read_features),
        'packed': Kind('p.npz', of_npz(**pack, offset=offset), read_packed),
        'torch': Kind('t.pth', pth(False), read_tensors),
        'legacy torch': Kind('t.pth', pth(True), read_tensors),
        'safetensors': Kind('t.safetensors', safetensors(), read_tensors),
        'model': Kind('m.safetensors', model(folder), use_model),
        'classes.json': Kind('classes.json', text(classes), descriptions.descriptions),
        'listing': Kind('classes.json', text(listed), read_listing),
        'manifest': Kind('manifest.csv', listing.encode(), read_manifest),
        'config.json': Kind('config.json', configs.to_json(config).encode(), read_config),
        'result.json': Kind('result.json', text(result), files.read_json),
        'predictions.json': Kind('predictions.json', text(known), record),
        'metrics.jsonl': Kind('metrics.jsonl', steps, logs.metrics),
        'omniglot': Kind('images_background.zip', zipped(drawings), read_omniglot),
        'one-shot runs': Kind('runs.zip', zipped(run), read_runs),
    }
