"""Weights from the Hugging Face hub, of one revision; what stands in the way is said at once."""

import socket
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from absl import logging

from anyshot_jax.types import InputError

WEIGHTS = ('model.safetensors', 'pytorch_model.bin')  # the first that is there; never unpickled
WORDS = ('tokenizer.json', 'vocab.json', 'merges.txt')
CONNECT_SECONDS = 5.0


class Source(NamedTuple):
    """A repository on the hub, and which state of it."""

    repository: str  # owner/name
    revision: str = ''  # a commit, branch or tag; '': its main branch as it is now


def parse(which: str) -> Source:
    """'hf:owner/name@revision' -> its parts; the revision may be left out.

    Raises:
      InputError: it isn't of that form.
    """
    repository, _, revision = which.removeprefix('hf:').partition('@')
    if repository.count('/') != 1 or not all(repository.split('/')):
        raise InputError(f'{which!r}: a repository is hf:owner/name or hf:owner/name@revision')
    return Source(repository, revision)


def fetch(source: Source, *, words: bool, instead: str) -> Path:
    """The weights file in the hub's cache, its tokenizer's files beside it.

    The log says which commit that is.

    Args:
      words: its tokenizer is wanted, too, where it has one. instead: what to do without a network,
        for messages.
    Raises:
      InputError: no library, no network, no such repository, revision or file, or one that asks
        for a token; says what to do.
    """
    try:
        import huggingface_hub as hub
    except ImportError as e:
        raise InputError(
            f'{source.repository} is downloaded with huggingface_hub: pip install '
            f"'anyshot-jax[pretrained]', or give {instead}"
        ) from e
    path = _first(hub, source, WEIGHTS, instead)
    if path is None:
        raise InputError(f'{source.repository} has neither {" nor ".join(WEIGHTS)}')
    commit = path.parent.name
    if words:
        state = source._replace(revision=commit)
        if _first(hub, state, WORDS[:1], instead) is None:
            for name in WORDS[1:]:
                _first(hub, state, [name], instead)
    logging.info('weights: hf:%s@%s', source.repository, commit)
    return path


def _first(hub, source: Source, names: Sequence[str], instead: str) -> Path | None:
    """The first of the files that the repository has; from the cache where it is there."""
    for name in names:
        path = hub.try_to_load_from_cache(source.repository, name, revision=_revision(source))
        if isinstance(path, str) and len(source.revision) == 40:  # a commit never changes
            return Path(path)
    _check_network(hub, source, instead)
    for name in names:
        try:
            return Path(hub.hf_hub_download(source.repository, name, revision=_revision(source)))
        except hub.errors.LocalEntryNotFoundError as e:
            raise _unreachable(source, _line(e), instead) from e
        except hub.errors.GatedRepoError as e:
            raise InputError(
                f'{source.repository} is gated: ask for access at '
                f'{hub.constants.ENDPOINT}/{source.repository}, then set HF_TOKEN (or run '
                f'`hf auth login`), or give {instead}'
            ) from e
        except hub.errors.RevisionNotFoundError as e:
            raise InputError(
                f'{source.repository} has no revision {source.revision!r}: take a commit, branch '
                'or tag of it'
            ) from e
        except hub.errors.RepositoryNotFoundError as e:
            raise InputError(
                f'there is no repository {source.repository!r} on the hub (or it is private: set '
                'HF_TOKEN)'
            ) from e
        except hub.errors.EntryNotFoundError:
            continue
        except Exception as e:  # the library and what it stands on raise many kinds
            raise _unreachable(source, _line(e), instead) from e
    return None


def _revision(source: Source) -> str | None:
    return source.revision or None


def _check_network(hub, source: Source, instead: str) -> None:
    """At once, where the library would try again for half a minute."""
    if hub.constants.HF_HUB_OFFLINE or urllib.request.getproxies():
        return
    host = urlsplit(hub.constants.ENDPOINT)
    try:
        address = host.hostname, host.port or (443 if host.scheme == 'https' else 80)
        socket.create_connection(address, CONNECT_SECONDS).close()
    except OSError as e:
        cached = hub.try_to_load_from_cache(
            source.repository, WEIGHTS[0], revision=_revision(source)
        )
        if not isinstance(cached, str):
            raise _unreachable(source, f'{host.hostname}: {_line(e)}', instead) from e


def _unreachable(source: Source, reason: str, instead: str) -> InputError:
    return InputError(
        f'{source.repository} could not be downloaded from the Hugging Face hub ({reason}); '
        f'without a network give {instead}'
    )


def _line(e: Exception) -> str:
    return str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
