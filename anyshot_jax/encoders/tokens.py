"""Texts to tokens, with the pretrained text encoders' own vocabularies, and back as vectors."""

import html
import string
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from anyshot_jax.types import Array, InputError

CLIP_START, CLIP_END = '<|startoftext|>', '<|endoftext|>'
_CLIP_WORDS = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)
# Curly quotes; ligatures and characters of full or half width become their plain forms.
_PLAIN = dict.fromkeys('\u02bc\u2018\u2019\u201a\u201b', "'")
_PLAIN |= dict.fromkeys('\u201c\u201d\u201e\u201f', '"')
for _code in (0x3000, *range(0xFB00, 0xFB07), *range(0xFF01, 0xFFF0)):
    _PLAIN[chr(_code)] = unicodedata.normalize('NFKC', chr(_code))
_PLAIN_TABLE = str.maketrans(_PLAIN)


class Tokenizer(NamedTuple):
    """Tokenizer of one text encoder."""

    encode: Callable[[Sequence[str]], list[list[int]]]  # start and end tokens included, cut to fit
    lengths: tuple[
        int, ...
    ]  # what texts are padded to, ascending; one program is compiled for each
    pad_token: int


def clip_tokenizer(path: Path, context: int = 77) -> Tokenizer:
    """CLIP's byte-level BPE tokenizer. Radford et al. 2021, section 2.4; case is ignored.

    HTML entities are resolved, curly quotes, ligatures and wide characters made plain and white
    space is collapsed as in the original; its repair of wrongly decoded text (`ftfy`) is not done.

    Args:
      path: tokenizer.json, or a folder with that or with vocab.json and merges.txt, as Hugging Face
        has them.
      context: most tokens of a text, start and end included; a longer text loses words before the
        end token.
    Raises:
      InputError: files missing or of another tokenizer; names them.
    """
    path, folder = Path(path), Path(path)
    if path.is_dir():
        path = folder / 'tokenizer.json'
    if path.is_file() or path == folder:
        tok = _from_json(path)
    else:
        path, merges = folder / 'vocab.json', folder / 'merges.txt'
        if not (path.is_file() and merges.is_file()):
            raise InputError(f'{folder} has neither tokenizer.json nor vocab.json and merges.txt')
        tok = _clip_from_merges(path, merges)
    start, end = _ids(tok, path, CLIP_START, CLIP_END)
    _limit(tok, path, context, [start, end])

    def encode(texts: Sequence[str]) -> list[list[int]]:
        return [e.ids for e in tok.encode_batch([_clean(text) for text in texts])]

    # Attention is causal: padding behind the end token changes nothing, whatever its length.
    return Tokenizer(encode, _lengths(context), end)


def wordpiece_tokenizer(path: Path, context: int = 256) -> Tokenizer:
    """BERT's WordPiece tokenizer, MiniLM's too. Devlin et al., "BERT", 2019.

    Args:
      path: tokenizer.json, or a folder with that.
      context: most tokens of a text, [CLS] and [SEP] included; the end of a longer text is cut.
    Raises:
      InputError: file missing or of another tokenizer; names it.
    """
    path = Path(path)
    path = path / 'tokenizer.json' if path.is_dir() else path
    tok = _from_json(path)
    pad, start, end = _ids(tok, path, '[PAD]', '[CLS]', '[SEP]')
    _limit(tok, path, context, [start, end])

    def encode(texts: Sequence[str]) -> list[list[int]]:
        return [e.ids for e in tok.encode_batch(list(texts))]

    return Tokenizer(encode, _lengths(context), pad)


def siglip_tokenizer(path: Path, context: int = 64, *, plain: bool) -> Tokenizer:
    """SigLIP's tokenizers: lower case, the end token always last, filled up to the context.

    Args:
      path: tokenizer.json, or a folder with that.
      plain: without ASCII punctuation, of a C4 vocabulary (SigLIP); else Gemma's (SigLIP 2).
    Raises:
      InputError: file missing or of another tokenizer; names it.
    Reference:
      The canonical texts of google-research/big_vision's zero-shot evaluation.
    """
    path = Path(path)
    path = path / 'tokenizer.json' if path.is_dir() else path
    tok = _from_json(path)
    end, pad = _ids(tok, path, *(('</s>', '</s>') if plain else ('<eos>', '<pad>')))
    tok.no_padding()
    tok.no_truncation()
    without = str.maketrans('', '', string.punctuation)

    def clean(text: str) -> str:
        return ' '.join(text.lower().translate(without).split()) if plain else text.lower()

    def encode(texts: Sequence[str]) -> list[list[int]]:
        cleaned = [clean(text)[: 64 * context] for text in texts]
        found = tok.encode_batch(cleaned, add_special_tokens=False)
        return [[*e.ids[: context - 1], end] for e in found]

    return Tokenizer(encode, (context,), pad)


def in_batches(
    tokenizer: Tokenizer, texts: Sequence[str], batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Texts of like length together, padded to few shapes, so that few programs are compiled.

    Yields:
      rows [n] (which texts these are, n <= batch_size), tokens [batch_size, T] int32, mask
      [batch_size, T] bool (true where a token counts), T one of tokenizer.lengths. Rows from n on
      are padding only.
    """
    ids = tokenizer.encode(texts)
    order = np.argsort([len(i) for i in ids], kind='stable')
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        longest = len(ids[rows[-1]])
        length = next(n for n in tokenizer.lengths if n >= longest)
        tokens = np.full((batch_size, length), tokenizer.pad_token, np.int32)
        mask = np.zeros((batch_size, length), bool)
        for i, row in enumerate(rows):
            tokens[i, : len(ids[row])] = ids[row]
            mask[i, : len(ids[row])] = True
        yield rows, tokens, mask


def embed_texts(
    apply: Callable[[Array, Array], Array],
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    batch_size: int = 32,
) -> np.ndarray:
    """Vectors of texts.

    Args:
      apply: from tokens [batch_size, T] int32 and mask [batch_size, T] bool to features
        [batch_size, D]; jit it.
    Returns:
      [N, D] float32, in the order of the texts.
    Raises:
      InputError: no texts.
    """
    if not len(texts):
        raise InputError('no texts to embed')
    batches = list(in_batches(tokenizer, texts, batch_size))
    # All are started before the first is waited for: the device never idles.
    features = [(rows, apply(tokens, mask)) for rows, tokens, mask in batches]
    parts = [np.asarray(y, np.float32)[: len(rows)] for rows, y in features]
    order = np.concatenate([rows for rows, _ in features])
    return np.concatenate(parts)[np.argsort(order)]


def _clean(text: str) -> str:
    text = html.unescape(html.unescape(text.translate(_PLAIN_TABLE)))  # twice, as the original
    return ' '.join(text.split())


def _lengths(context: int) -> tuple[int, ...]:
    return (*(n for n in (16, 32, 64, 128) if n < context), context)


def _from_json(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f'no tokenizer file at {path}')
    try:
        return _library(path).Tokenizer.from_file(str(path))
    except Exception as e:  # the library raises bare ones
        if isinstance(e, InputError):
            raise
        raise InputError(f'{path} is not a tokenizer.json of the tokenizers library: {e}') from e


def _clip_from_merges(vocab: Path, merges: Path) -> Any:
    lib = _library(vocab)
    try:
        bpe = lib.models.BPE.from_file(
            str(vocab), str(merges), unk_token=CLIP_END, end_of_word_suffix='</w>'
        )
    except Exception as e:  # the library raises bare ones
        raise InputError(f"{vocab} and {merges.name} are not a BPE tokenizer's: {e}") from e
    tok = lib.Tokenizer(bpe)
    start, end = _ids(tok, vocab, CLIP_START, CLIP_END)
    normal, pre = lib.normalizers, lib.pre_tokenizers
    tok.normalizer = normal.Sequence([normal.NFC(), normal.Lowercase()])
    tok.pre_tokenizer = pre.Sequence(
        [
            pre.Split(lib.Regex(_CLIP_WORDS), behavior='removed', invert=True),
            pre.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tok.post_processor = lib.processors.TemplateProcessing(
        single=f'{CLIP_START} $A {CLIP_END}', special_tokens=[(CLIP_START, start), (CLIP_END, end)]
    )
    tok.add_special_tokens([CLIP_START, CLIP_END])
    return tok


def _ids(tok: Any, path: Path, *names: str) -> list[int]:
    ids = [tok.token_to_id(name) for name in names]
    if None in ids:
        raise InputError(f"{path} has no token {names[ids.index(None)]!r}: is it this encoder's?")
    return ids


def _limit(tok: Any, path: Path, context: int, ends: list[int]) -> None:
    """Set the library's own cutting and padding, whatever the file says."""
    tok.no_padding()
    tok.enable_truncation(context)
    if tok.encode('').ids != ends:
        raise InputError(f'{path} does not put start and end tokens around a text')


def _library(path: Path) -> Any:
    try:
        import tokenizers
        import tokenizers.models
        import tokenizers.normalizers
        import tokenizers.pre_tokenizers
        import tokenizers.processors
    except ImportError as e:
        raise InputError(
            f"{path} needs the tokenizers library: pip install 'anyshot-jax[pretrained]'"
        ) from e
    return tokenizers
