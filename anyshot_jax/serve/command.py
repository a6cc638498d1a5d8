"""python -m anyshot_jax.serve --model=FILE [--port=8000] [--save] [--defects]

A page on this machine's own address (127.0.0.1) that shows a classifier, answers about images
dropped on it, and takes new classes, examples and descriptions. On the same page a detector of
defects learns from normal images and judges others.
"""

import os
import socket
import sys
from pathlib import Path
from typing import Any

from absl import flags, logging

from anyshot_jax import command
from anyshot_jax.types import InputError

HOST = '127.0.0.1'  # never another: whoever reaches the page may change the model


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise InputError(f'unexpected argument {argv[1]!r}; options are written --model=FILE')
    given = flags.FLAGS
    path = Path(given.model) if given.model else None
    if given.save and (path is None or path.suffix != '.safetensors'):
        raise InputError('--save needs the file to write: --model=FILE.safetensors')
    with listen(given.port) as server:
        try:
            import uvicorn

            from anyshot_jax.serve.app import create_app
            from anyshot_jax.serve.uploads import Limits
        except ImportError as e:
            raise InputError(f"the page needs more ({e}): pip install 'anyshot-jax[app]'") from e
        from anyshot_jax.runtime import start

        logging.set_verbosity(logging.WARNING)
        start.keep_compiled()
        port = server.getsockname()[1]
        found = detector(path, given.encoder, may_be_new=given.save, wanted=given.defects)
        own = None if found else path
        page = create_app(
            classifier(own, given.encoder, may_be_new=given.save, crop=given.crop),
            port=port,
            detector=found,
            save_to=path if given.save else None,
            limits=Limits(pixels=given.max_pixels),
        )
        print(f'http://{HOST}:{port}  (Ctrl-C ends it)', flush=True)
        uvicorn.Server(settings(page)).run(sockets=[server])


def settings(page: Any) -> Any:
    """uvicorn settings for a server without a reverse proxy."""
    import uvicorn

    from anyshot_jax.serve.connection import Connection

    return uvicorn.Config(
        page, http=Connection, log_level='warning', ws='none', lifespan='off', limit_concurrency=64,
        proxy_headers=False, server_header=False, timeout_graceful_shutdown=2,
    )  # fmt: skip


def listen(port: int) -> socket.socket:
    """A socket of this machine only, at this port.

    Raises:
      InputError: the port is taken, or may not be used.
    """
    if not 0 <= port <= 65535:
        raise InputError(f'--port={port}: need 0 to 65535')
    server = socket.socket()
    if os.name == 'posix':  # a port that was just left is free at once
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind((HOST, port))
        server.listen()
    except OSError as e:
        server.close()
        raise InputError(f'--port={port} cannot be had ({e.strerror}): try another') from e
    return server


def classifier(path: Path | None, encoder: str, may_be_new: bool, crop: str = 'auto'):
    """The classifier of a file, or one without classes.

    Args:
      path: the file, or None. encoder: of a new one; '' for the default.
      crop: of a new one, what is seen of images that are no squares.
      may_be_new: whether the file may be missing, where an encoder is given for what it will hold.
    Raises:
      InputError: the file is missing, damaged, of feature vectors, or has its own encoder.
    """
    from anyshot_jax.classify.classifier import AnyShotClassifier

    if path is None or (may_be_new and encoder and not path.exists()):
        return AnyShotClassifier(encoder=encoder or 'efficientnet_lite0', crop=crop)
    if not path.exists() and may_be_new:
        raise InputError(f'{path} is not there: give --encoder=efficientnet_lite0 to start it')
    if encoder:
        raise InputError(f'{path} says which encoder it has: leave out --encoder')
    found = AnyShotClassifier.load(path)
    if not found.of_images_:
        raise InputError(f'{path} classifies feature vectors; the page needs one of images')
    return found


def detector(path: Path | None, encoder: str, may_be_new: bool, wanted: bool):
    """The detector of a file, or a new one if it is wanted; None where the page is of classes.

    Args:
      path: the file, or None. encoder: of a new one; '' for the default.
      may_be_new: whether the file may be missing. wanted: whether it is to be a detector.
    Raises:
      InputError: the file is missing, damaged, of a classifier, or has its own encoder.
    """
    from anyshot_jax.detect import model_file
    from anyshot_jax.detect.detector import AnomalyDetector

    if not wanted and not (path and path.exists() and model_file.is_detector(path)):
        return None
    if path is None or (may_be_new and not path.exists()):
        return AnomalyDetector(encoder=encoder or 'efficientnet_lite0')
    if encoder:
        raise InputError(f'{path} says which encoder it has: leave out --encoder')
    return AnomalyDetector.load(path)


def _define_flags() -> None:
    """Here, so that whoever imports this module has flags of its own."""
    flags.DEFINE_string(
        'model', '', 'A classifier or a detector that was saved. Default: new ones.'
    )
    said = 'Of a model that is new. Default: efficientnet_lite0.'
    flags.DEFINE_string('encoder', '', said)
    crops = ['auto', 'whole', 'centre', 'tiles']
    said = 'Of a classifier without classes: what is seen of images that are no squares.'
    flags.DEFINE_enum('crop', 'auto', crops, said)
    said = 'An image of more pixels is refused.'
    flags.DEFINE_integer('max_pixels', 50_000_000, said)
    flags.DEFINE_integer('port', 8000, 'Where the page is; 0: any free port.')
    said = 'The page begins with defects; the file of --model is a detector.'
    flags.DEFINE_bool('defects', False, said)
    said = 'The page may write the model to the file of --model, made if it is missing.'
    flags.DEFINE_bool('save', False, said)


def cli() -> None:
    """Entry point, see `command.run`."""
    _define_flags()
    try:
        command.run(main)
    except KeyboardInterrupt:  # how a server ends
        sys.exit(0)
