"""What a run writes while it trains, read from the files as others read them."""

import resource
import struct

import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from anyshot_jax.training import logbook
from anyshot_jax.types import InputError


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


@pytest.mark.parametrize('part', ['lines', 'curves', 'the end'])
def test_a_full_disk_is_an_error_that_names_the_files(tmp_path, part, monkeypatch):
    """RLIMIT_FSIZE makes the system refuse the bytes, as a full disk does."""
    monkeypatch.setattr(logbook, 'say', lambda text: None)  # pytest keeps it in a file, too
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    refused = pytest.raises(InputError, match=f'{tmp_path}/metrics.jsonl and .* File too large')
    try:
        with refused, logbook.Logbook(tmp_path, 0, 10, {}) as log:
            log.add({'loss': np.ones((1, 1), np.float32)}, 1.0)
            if part == 'lines':
                resource.setrlimit(resource.RLIMIT_FSIZE, (2, limits[1]))
            log.train(1)
            resource.setrlimit(resource.RLIMIT_FSIZE, (2, limits[1]))
            if part == 'curves':
                log.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
