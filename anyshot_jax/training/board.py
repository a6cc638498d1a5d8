"""TensorBoard's events of a run, which are on the disk once `flush` returns.

tensorboardX's own SummaryWriter hands them to a thread, and its flush does not wait for that; its
EventsWriter can't be closed on a full disk.
"""

import socket
import time
from pathlib import Path
from typing import Any

from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import RecordWriter
from tensorboardX.summary import scalar


class Board:
    """Curves in a folder of a run that starts now: those of earlier files are forgotten."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        name = f'events.out.tfevents.{int(time.time())}.{socket.gethostname()}'
        self._records = RecordWriter(str(folder / name))
        self._add(file_version='brain.Event:2')
        self._add(step=1, session_log=SessionLog(status=SessionLog.START))

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        """A point of a curve."""
        self._add(step=step, summary=scalar(tag, value))

    def _add(self, **event: Any) -> None:
        self._records.write(Event(wall_time=time.time(), **event).SerializeToString())

    def flush(self) -> None:
        """Brings all of them to the disk."""
        self._records.flush()

    def close(self) -> None:
        """The same, for good."""
        try:
            self.flush()
        finally:
            self._records.close()
