"""WebVision's web images of novel classes beside ImageNet's clean ones, as in the SimTrans paper.

    ImageNet/train_files.txt                          train/<wnid>/<image>,<wnid>
    ImageNet/val/ILSVRC2012_val_<number>.JPEG         with the number's line in
    ImageNet/ILSVRC2012_validation_ground_truth.txt   a class's number, of
    ImageNet/meta.mat                                 synsets: ILSVRC2012_ID and WNID
    WebVision/info/synsets.txt                        <wnid> <words>
    WebVision/info/queries_synsets_map.txt            <query> <line of synsets.txt, from 1>
    WebVision/train_files_118.txt                     google/q0001/<image> <synset, from 0>

The images of the last list lie in WebVision/subset118; without that list those of
WebVision/info/train_filelist_google.txt and train_filelist_flickr.txt are taken, in WebVision.
novel.txt and base.txt beside the two folders list wnids, one a line; without them the first 118 of
the sorted wnids are novel and all others base, as in the paper. Lists are read line by line, and
of a class the first `most` images are kept: memory grows with these and not with the lists.
"""

import io
import itertools
import re
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from anyshot_jax.storage.files import read_whole
from anyshot_jax.types import InputError

NOVEL = 118
MAX_META = 50_000_000  # bytes of meta.mat, packed or not
MAX_SYNSETS = 100_000
MAX_LINE = 10_000
COMPRESSED, NUMBERS = 15, 5  # types of MAT-file elements
Files = dict[tuple[str, str], list[Path]]  # (base, web or test; wnid) -> its files


def find_webvision(root: Path, most: int) -> Files:
    """The files of every role and class.

    Args:
      most: images of a class for base and for web, the first of the lists; 0: all.
    Raises:
      InputError: a file that isn't there or doesn't fit; names it and the line.
    """
    clean, web = root / 'ImageNet', root / 'WebVision'
    wnid_of = read_meta(clean / 'meta.mat')
    known = sorted(set(wnid_of.values()))
    trained = sorted({wnid for _, wnid in _lines(clean / 'train_files.txt', ',')})
    novel = _listed(root / 'novel.txt', known) or set(trained[:NOVEL])
    base = _listed(root / 'base.txt', known) or set(trained) - novel
    if both := sorted(novel & base):
        raise InputError(f'{root}: {both[0]} stands in base.txt and in novel.txt')
    files: Files = {}

    def add(role: str, wnid: str, folder: Path, name: str) -> None:
        kept = files.setdefault((role, wnid), [])
        if role == 'test' or not most or len(kept) < most:
            kept.append(folder / _inside(name, folder))

    for name, wnid in _lines(clean / 'train_files.txt', ','):
        if wnid in base:
            add('base', wnid, clean, name)
    for folder, name, wnid in _of_web(web):
        if wnid in novel:
            add('web', wnid, folder, name)
    truth = [line for (line,) in _numbered(clean / 'ILSVRC2012_validation_ground_truth.txt', None)]
    for path in sorted((clean / 'val').glob('*')):
        number = re.fullmatch(r'.*_(\d+)', path.stem)
        if not number or not 0 < int(number[1]) <= len(truth):
            raise InputError(
                f'{path}: expected the number of one of {len(truth)} lines in its name'
            )
        asked = truth[int(number[1]) - 1]
        if asked not in wnid_of:
            raise InputError(f'{path} has class {asked!r}, not in meta.mat')
        if wnid_of[asked] in novel | base:
            files.setdefault(('test', wnid_of[asked]), []).append(path)
    return files


def _of_web(web: Path) -> Iterator[tuple[Path, str, str]]:
    """Folder, name and wnid of every web image."""
    synsets = [wnid for wnid, _ in _numbered(web / 'info' / 'synsets.txt', ' ')]
    queries = _lines(web / 'info' / 'queries_synsets_map.txt', ' ')
    of_query = {query.lstrip('0'): synset for query, synset in queries}
    short = web / 'train_files_118.txt'
    lists = [web / 'info' / f'train_filelist_{source}.txt' for source in ('google', 'flickr')]
    for path in [short] if short.is_file() else lists:
        for name, number in _lines(path, ' '):
            query = re.match(r'[^/]+/q0*(\d+)/', name)
            known = number.isdecimal() and len(number) < 10 and int(number) < len(synsets)
            if not known or not query:
                raise InputError(f'{path}: {name!r} {number!r} is no image of a query and a synset')
            if of_query.get(query[1]) != str(int(number) + 1):
                raise InputError(
                    f'{path}: {name!r} is of another synset in queries_synsets_map.txt'
                )
            yield web / 'subset118' if path == short else web, name, synsets[int(number)]


def read_meta(path: Path) -> dict[str, str]:
    """ILSVRC2012_ID -> WNID of the synsets in a MAT-file, of bounded size; nothing in it runs.

    Raises:
      InputError: no such file, too large packed or unpacked, or another content.
    """
    from scipy.io import loadmat  # slow to import, and for this layout only

    try:
        content = read_whole(path, MAX_META)
        _check_size(path, content)
        synsets = loadmat(io.BytesIO(content), variable_names=['synsets'], squeeze_me=True)[
            'synsets'
        ]
        return {str(int(s['ILSVRC2012_ID'])): str(s['WNID']) for s in synsets.reshape(-1)}
    except InputError:
        raise
    except Exception as e:  # a damaged MAT-file can raise anything
        raise InputError(f'{path} cannot be read: {type(e).__name__}: {e}') from e


def _check_size(path: Path, content: bytes) -> None:
    """Refuses elements that unpack to too much, or claim too many entries."""
    at = 128
    while at + 8 <= len(content):
        kind, size = (int.from_bytes(content[i : i + 4], 'little') for i in (at, at + 4))
        body = content[at + 8 : at + 8 + size]
        if kind == COMPRESSED:
            unpack = zlib.decompressobj()
            body = unpack.decompress(body, MAX_META)
            if unpack.unconsumed_tail:
                raise InputError(f'{path} unpacks to more than {MAX_META:,} bytes')
            body = body[8:]
        # Array flags take 16 bytes, then come the dimensions.
        if int.from_bytes(body[16:20], 'little') == NUMBERS:
            num = min(int.from_bytes(body[20:24], 'little') // 4, 8)
            entries = 1
            for i in range(num):
                entries *= int.from_bytes(body[24 + 4 * i : 28 + 4 * i], 'little')
            if entries > MAX_SYNSETS:
                raise InputError(f'{path} has an array of {entries:,} entries')
        at += 8 + size


def _listed(path: Path, known: list[str]) -> set[str]:
    """The wnids of a list, if there is one."""
    if not path.is_file():
        return set()
    found = {wnid for (wnid,) in _lines(path, None)}
    if unknown := sorted(found - set(known)):
        raise InputError(f'{path}: {unknown[0]!r} is no wnid of meta.mat')
    return found


def _inside(name: str, folder: Path) -> str:
    pure = PurePosixPath(name)
    if pure.is_absolute() or '..' in pure.parts:
        raise InputError(f'{name!r} lies outside {folder}')
    return name


def _numbered(path: Path, separator: str | None) -> Iterator[tuple[str, ...]]:
    """The lines of a list that others name by their numbers: a blank one would move the rest."""
    return _lines(path, separator, blanks=False)


def _lines(path: Path, separator: str | None, blanks: bool = True) -> Iterator[tuple[str, ...]]:
    """The lines of a list: whole, or in two at the separator; one at a time."""
    blank = 0
    try:
        with path.open(encoding='utf-8') as f:
            for i in itertools.count(1):
                line = f.readline(MAX_LINE)
                if not line:
                    return
                pieces = tuple(line.strip().split(separator, 1)) if separator else (line.strip(),)
                if not line.strip():
                    blank = i
                    continue
                if blank and not blanks:
                    raise InputError(f'{path}:{blank} is blank, which moves the lines after it')
                if len(pieces) != (2 if separator else 1):
                    raise InputError(f'{path}:{i} has one column, expected two with {separator!r}')
                yield pieces
    except (OSError, UnicodeDecodeError) as e:
        raise InputError(f'{path} cannot be read: {e}') from e
