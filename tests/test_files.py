"""Workdirs in cloud storage: fsspec's memory file system stands where s3:// is served from."""

import json
from typing import ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from anyshot_jax.storage import files
from anyshot_jax.training import logbook, loop
from anyshot_jax.types import InputError


class Bucket(MemoryFileSystem):
    """A store without appending, as buckets are."""

    protocol = 's3'
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list] = ['']

    @classmethod
    def _strip_protocol(cls, path):
        return '/' + path.removeprefix('s3://').strip('/')

    def open(self, path, mode='rb', **kwargs):
        if 'a' in mode:
            raise NotImplementedError('objects cannot grow')
        return super().open(path, mode, **kwargs)


@pytest.fixture
def bucket():
    fsspec.register_implementation('s3', Bucket, clobber=True)
    Bucket.store.clear()
    Bucket.pseudo_dirs[:] = ['']
    return files.folder('s3://bucket/run')


def test_a_run_in_a_bucket(tiny_config, bucket, tmp_path, capsys):
    """The same files as on a disk, and the same result; the second call finds it finished."""
    loop.run(tiny_config('knn', net=''), bucket)
    loop.run(tiny_config('knn', net=''), tmp_path)
    for name in ('config.json', 'result.json', 'report.html'):
        here, there = (tmp_path / name).read_text(), (bucket / name).read_text()
        assert here.count('\n') == there.count('\n')
    values = [json.loads((w / 'result.json').read_text())['values'] for w in (bucket, tmp_path)]
    assert values[0] == values[1]
    capsys.readouterr()
    loop.run(tiny_config('knn', net=''), 's3://bucket/run')
    assert 's3://bucket/run is finished' in capsys.readouterr().out
    with pytest.raises(InputError, match='made with another config'):
        loop.run(tiny_config('knn', net='', seed=3), bucket)


def test_a_logbook_in_a_bucket_goes_on(bucket):
    values = [{'5-way 1-shot': {'mean': 0.5, 'ci95': 0.1, 'n': 9}}]
    bucket.mkdir(parents=True)
    with logbook.Logbook(bucket, 0, 10, {}) as log:
        log.val(2, values)
        log.val(4, values)
    with logbook.Logbook(bucket, 2, 10, {}) as log:  # the checkpoint is of step 2
        log.val(4, values)
        log.val(6, values)
    lines = (bucket / 'metrics.jsonl').read_text().splitlines()
    assert [json.loads(line)['step'] for line in lines] == [2, 4, 6]
    assert [p.name for p in bucket.iterdir()] == ['metrics.jsonl']


def test_what_fails_in_a_bucket_is_not_said_of_the_bucket(bucket):
    with pytest.raises(FileNotFoundError, match='no data'), logbook.locked(bucket):
        raise FileNotFoundError('no data')


def test_training_in_a_bucket_of_s3_is_refused_before_any_step(tiny_config, bucket):
    """Orbax writes to disks and gs:// only."""
    with pytest.raises(InputError, match=r'--workdir=s3://bucket/run: checkpoints are kept on a'):
        loop.run(tiny_config(num_steps=2), bucket)
    assert not list(bucket.iterdir())


def test_what_is_on_disk(tmp_path):
    assert files.on_disk(tmp_path) and files.on_disk('runs/a') and not files.on_disk('gs://b/c')
    assert files.folder(tmp_path) == tmp_path and str(files.folder('gs://b/c')) == 'gs://b/c'
