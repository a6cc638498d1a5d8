"""Any image classification set of tensorflow-datasets by name, read without TensorFlow.

The set is looked for in config.data.dir (or tensorflow-datasets' own directory), in array_record
format; what isn't there is downloaded and prepared if its code does that without TensorFlow.
The classes of all splits together are divided into train, val and test as for `folder`.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from absl import logging
from ml_collections import ConfigDict
from PIL import Image

from anyshot_jax.data.readers.images import MAX_PIXELS, fit, open_image
from anyshot_jax.data.readers.sources import eight_bit
from anyshot_jax.data.splits import FIELDS, split_classes, split_items
from anyshot_jax.runtime.bars import bar
from anyshot_jax.types import Data, InputError, nearest

DEFAULTS = {
    **FIELDS,
    'dataset': '',  # e.g. 'oxford_flowers102', 'tf_flowers:3.*.*'
    'splits': ('train', 'test'),  # which of its splits to take together
    'image': 'image',  # its features
    'label': 'label',
    'size': 84,  # images are centre-cropped and resized to size x size
    'channels': 3,
    'turns': 1,
    'turns_eval': 1,
}


def load(config: ConfigDict) -> Data:
    """Data of uint8 [N, size, size, channels]; names are the set's own.

    Raises:
      InputError: no such set, split or feature, or it can't be downloaded; says what to do.
    """
    if not config.dataset:
        raise InputError('config.data.dataset is empty: name a set of tensorflow-datasets')
    if config.channels not in (1, 3) or config.size < 1 or not config.splits:
        raise InputError('config.data: need channels 1 or 3, size >= 1 and at least one of splits')
    builder = open_builder(config.dataset, config.dir)
    for field in (config.image, config.label):
        if field not in builder.info.features:
            hint = nearest(field, builder.info.features)
            raise InputError(f'{config.dataset} has no feature {field!r}{hint}')
    names = getattr(builder.info.features[config.label], 'names', None)
    if not names:
        raise InputError(f'{config.dataset}: {config.label!r} is not a class label')
    x: list[Any] = []
    label: list[int] = []
    for split in config.splits:
        for i, item in enumerate(read_split(builder, split)):
            if not 0 <= int(item[config.label]) < len(names):
                raise InputError(f'{config.dataset}/{split}: item {i} has no label')
            image = _image(item[config.image], f'{config.dataset}/{split}, item {i}')
            x.append(fit(image.convert('RGB' if config.channels == 3 else 'L'), config.size))
            label.append(int(item[config.label]))
    if not x:
        raise InputError(f'{config.dataset}: no items in {", ".join(config.splits)}')
    used, renumbered = np.unique(label, return_inverse=True)
    names = [names[c] for c in used]
    role = split_classes(names, config)
    turns = (config.turns, config.turns_eval)
    return split_items(np.stack(x), renumbered, names, [role[n] for n in names], turns=turns)


def open_builder(name: str, data_dir: str) -> Any:
    """The builder of a set whose files are there, downloaded if need be; InputError otherwise."""
    import tensorflow_datasets  # slow, and only this source needs it

    where = f'in {data_dir or "the default directory"}'
    try:
        builder = tensorflow_datasets.builder(name, data_dir=data_dir or None, try_gcs=False)
    except Exception as e:  # its errors have many types: unknown name, version, broken metadata
        raise InputError(
            f'tensorflow-datasets has no set {name!r} {where}: {_first_line(e)}'
        ) from e
    if not builder.info.splits:
        logging.info('preparing %s %s', name, where)
        try:
            builder.download_and_prepare(file_format='array_record')
        except Exception as e:  # network, disk, checksums, or code that needs TensorFlow
            raise InputError(
                f'{name} is not {where} and could not be prepared ({type(e).__name__}: '
                f'{_first_line(e)}). Prepare it where there is a network and TensorFlow: '
                f'tfds build {name} --file_format=array_record --data_dir=DIR, '
                'and set --config.data.dir=DIR'
            ) from e
    return builder


def read_split(builder: Any, split: str) -> Iterator[dict[str, Any]]:
    """The items of one split, images as arrays [H, W, C]."""
    if split not in builder.info.splits:
        hint = nearest(split, builder.info.splits)
        raise InputError(f'{builder.name} has no split {split!r}{hint}')
    try:
        source = builder.as_data_source(split)
    except Exception as e:  # another file format, missing files
        raise InputError(
            f'{builder.name}/{split} in {builder.data_path} cannot be read: {_first_line(e)}. '
            'Files in array_record format are needed (tfds build --file_format=array_record)'
        ) from e
    for i in bar(range(len(source)), f'read {builder.name}/{split}'):
        try:
            item = source[i]
        except Exception as e:  # damaged records and images, whatever the decoder makes of them
            raise InputError(
                f'{builder.name}/{split}, item {i} is damaged: {_first_line(e)}'
            ) from e
        yield item


def _image(image: Any, name: str) -> Image.Image:
    image = np.asarray(image)
    if image.ndim != 3 or image.dtype not in (np.uint8, np.uint16) or not image.size:
        raise InputError(f'{name}: the image is {image.dtype} {image.shape}, expected [H, W, C]')
    if image.shape[-1] == 1:
        image = image[..., 0]
    if image.dtype == np.uint16:
        image = eight_bit(image, name)
    return open_image(Image.fromarray(image), MAX_PIXELS, name)


def _first_line(e: Exception) -> str:
    return (str(e).strip().splitlines() or [''])[0]
