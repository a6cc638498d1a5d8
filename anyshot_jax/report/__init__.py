"""One HTML page about a run: what was reached, what the model sees, and how to do it again."""

import importlib
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from anyshot_jax.config import config_hash, find
from anyshot_jax.report import logs, members, page, probe, search, summary
from anyshot_jax.report.subject import Subject
from anyshot_jax.storage import files
from anyshot_jax.types import Array, Data, Method, TrainState


def write(
    workdir: Path | str,
    *,
    method: Method,
    state: TrainState,
    data: Data,
    config: ConfigDict,
    images: Array | None = None,
    web: Array | None = None,
) -> Path:
    """Writes <workdir>/report.html, complete in itself, and returns its path.

    `images` [N, H, W, C] are drawn for the test items, where those are features of them, and
    `web` for the items of the role web.
    Reads config.json, metrics.jsonl and result.json from the workdir; what is missing there, or
    what the method can't do, becomes a line on the page. The same run gives the same bytes.
    """
    workdir = files.folder(workdir)
    run = logs.read(workdir, config)
    # One device answers: on the state as training leaves it, every device would do all the work.
    state = jax.device_put(state, jax.local_devices()[0])
    rng = np.random.default_rng(abs(int(config.get('seed', 0))))
    pool = None if data.functions else probe.Pool.of(data, config, images)
    subject = Subject(workdir, method, state, data, config, images, web, rng, pool)

    parts = [summary.curves(run), members.part(run, config_hash(config))]
    parts += _page_of(config).parts(subject)
    if config.get('eval', {}).get('retrieval') and method.similarity and method.embed:
        parts.append(search.results(method, state, data.roles['test'], images, rng))
    parts.append(summary.settings(run, workdir))

    text = page.document(run.title, summary.headline(run, data, parts) + page.join(parts))
    path = workdir / 'report.html'
    files.write_bytes(path, text.encode('utf-8'))
    return path


def _page_of(config: ConfigDict):
    """The module report/<name>.py that the method's file names as REPORT; else `tasks`.

    A dotted name is a module of the user's own.
    """
    method = find('methods', config.method.name)
    name = getattr(method, 'REPORT', 'tasks')
    return importlib.import_module(name if '.' in name else f'anyshot_jax.report.{name}')
