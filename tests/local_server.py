"""The local page's server in a thread, and images to give it."""

import io
import threading
from contextlib import contextmanager

import httpx
import numpy as np
import uvicorn
from PIL import Image

from anyshot_jax.serve import command
from anyshot_jax.serve.app import create_app


def stripes(seed: int, across: bool) -> np.ndarray:
    """[64, 64, 3] uint8: coloured stripes of random width and place."""
    rng = np.random.default_rng(seed)
    wave = np.sin(np.arange(64) / rng.uniform(1.5, 3) + rng.uniform(0, 6)) > 0
    plane = np.broadcast_to(wave[:, None] if across else wave, (64, 64))
    colours = rng.integers(0, 256, (2, 3), np.uint8)
    return colours[plane.astype(int)]


def dots(seed: int) -> np.ndarray:
    """[64, 64, 3] uint8: grey noise."""
    grey = np.random.default_rng(seed).integers(0, 256, (64, 64, 1), np.uint8)
    return np.repeat(grey, 3, -1)


def png(image: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(image).save(data, 'png')
    return data.getvalue()


@contextmanager
def served(classifier, **settings):
    """A client of a server that runs meanwhile."""
    with command.listen(0) as socket:
        port = socket.getsockname()[1]
        app = create_app(classifier, port=port, **settings)
        server = uvicorn.Server(command.settings(app))
        thread = threading.Thread(target=server.run, kwargs={'sockets': [socket]})
        thread.start()
        at = f'http://127.0.0.1:{port}'
        try:
            with httpx.Client(base_url=at, headers={'origin': at}, timeout=60) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join()
