"""What a run writes while it trains, read from the files as others read them."""

import struct

import numpy as np
from tensorboardX.proto import event_pb2

from anyshot_jax.training import logbook


def scalars(folder):
    """(tag, step) -> value as TensorBoard shows them: a run that starts forgets what it purges."""
    shown = {}
    for path in sorted(folder.iterdir(), key=lambda p: p.stat().st_mtime_ns):
        content, at = path.read_bytes(), 0
        while at + 12 <= len(content):  # a record: its length, checksum, content, checksum
            (length,) = struct.unpack_from('<Q', content, at)
            event = event_pb2.Event.FromString(content[at + 12 : at + 12 + length])
            at += 16 + length
            if event.HasField('session_log'):
                shown = {key: v for key, v in shown.items() if key[1] < event.step}
            for value in event.summary.value:
                assert (value.tag, event.step) not in shown
                shown[value.tag, event.step] = value.simple_value
    return shown


def test_tensorboard_has_after_a_kill_what_metrics_has(tmp_path):
    """Flushed with a checkpoint; what a kill cut off is there again when the run goes on."""
    board = tmp_path / 'tensorboard'
    log = logbook.Logbook(tmp_path, 0, 10, {})
    for step in (1, 2, 3):
        log.add({'loss': np.full((1, 1), step, np.float32)}, 1.0)
        log.train(step)
    log.flush()
    loss = lambda: {s: v for (tag, s), v in scalars(board).items() if tag == 'train/loss'}
    assert loss() == {1: 1.0, 2: 2.0, 3: 3.0}
    [killed] = board.iterdir()
    log.__exit__()
    killed.write_bytes(killed.read_bytes()[: killed.stat().st_size // 3])
    with logbook.Logbook(tmp_path, 2, 10, {}) as log:  # the checkpoint is of step 2
        log.add({'loss': np.full((1, 1), 33, np.float32)}, 1.0)
        log.train(3)
    assert loss() == {1: 1.0, 2: 2.0, 3: 33.0}
