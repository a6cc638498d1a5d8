"""A model behind the page: asked and changed by many threads, one at a time."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

from anyshot_jax.types import InputError

M = TypeVar('M')
T = TypeVar('T')


class Session(Generic[M]):
    """The model as it is now. A change makes another one, and a failed change makes none.

    What the page shows is made at each change, so that nobody waits for it while another's request
    is worked on.
    """

    def __init__(
        self,
        model: M,
        save_to: Path | None,
        view: Callable[[M], dict[str, Any]],
        save: Callable[[M, Path], None],
    ):
        """Begins.

        Args:
          save_to: the only file that is ever written; None: none is.
          view: what the page shows of the model, as JSON.
          save: writes the model; InputError where it has nothing to keep.
        """
        self.model, self.save_to, self._view, self._save = model, save_to, view, save
        self._lock = threading.Lock()
        self._on_disk = _stamp(save_to)
        self._state = self._seen(unsaved=False)

    def state(self) -> dict[str, Any]:
        """The model as JSON, as it was after the last change."""
        return self._state

    def ask(self, answer: Callable[[M], T]) -> T:
        """The answer of the model."""
        with self._lock:
            return answer(self.model)

    def change(self, change: Callable[[M], M]) -> dict[str, Any]:
        """Puts the changed model in place of the model; gives the new state."""
        with self._lock:
            model = change(self.model)
            self.model = model
            self._state = self._seen(unsaved=True)
            return self._state

    def save(self) -> dict[str, Any]:
        """Writes the model to the file of the command line; gives the new state.

        Raises:
          InputError: none was named, there is nothing to save, or another program wrote it since.
        """
        with self._lock:
            if self.save_to is None:
                raise InputError('nothing may be written: start the server with --save')
            if _stamp(self.save_to) != self._on_disk:
                raise InputError(
                    f'{self.save_to.name} was changed by something else since the start: move it '
                    'away, then save'
                )
            self._save(self.model, self.save_to)
            self._on_disk = _stamp(self.save_to)
            self._state = self._seen(unsaved=False)
            return self._state

    def _seen(self, unsaved: bool) -> dict[str, Any]:
        file = self.save_to.name if self.save_to else None
        return {**self._view(self.model), 'file': file, 'unsaved': unsaved}


def _stamp(path: Path | None) -> tuple[int, int] | None:
    """Signature that changes when a file is written; None if the file isn't there."""
    if path is None or not path.exists():
        return None
    found = path.stat()
    return found.st_mtime_ns, found.st_size
