"""TensorBoard's events of a run, which are on the disk once `flush` returns.

tensorboardX's own SummaryWriter hands them to a thread, and its flush does not wait for that.
"""

import time
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar


class Board:
    """Curves in a folder of a run that starts now: those of earlier files are forgotten."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self._events = EventsWriter(str(folder / 'events'))
        start = SessionLog(status=SessionLog.START)
        self._events.write_event(Event(step=1, session_log=start, wall_time=time.time()))

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        """A point of a curve."""
        summary = scalar(tag, value)
        self._events.write_event(Event(step=step, summary=summary, wall_time=time.time()))

    def flush(self) -> None:
        """Brings all of them to the disk."""
        self._events.flush()

    def close(self) -> None:
        """The same, for good."""
        self._events.close()
