"""One HTML page about a run: what was reached, what the model sees, and how to do it again."""

from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from anyshot_jax.config import config_hash
from anyshot_jax.report import (
    anyshot,
    defect_types,
    detection,
    logs,
    members,
    page,
    probe,
    regression,
    search,
    summary,
    tasks,
    weak,
)
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
    functions = data.functions.get('test')
    test = None if functions else probe.Pool.of(data, config, images)

    parts = [summary.curves(run), members.part(run, config_hash(config))]
    of_method = config.get('method', {}).get('name')
    if of_method in ('patchcore', 'patch_net'):
        parts += detection.parts(state, data, config, rng)
    elif of_method == 'anomaly':
        # Other tasks would have near copies of one part on both sides.
        parts += defect_types.parts(method, state, data, config, images)
        if test is not None and method.embed is not None:
            parts.append(tasks.map_of(test, probe.embeddings(method, state, test, rng)))
    elif functions is not None:
        parts.append(regression.functions(method, state, functions, config))
    elif test is None:
        parts.append(page.note('No images of tasks: the data has no test classes to draw from.'))
    else:
        if method.predict is None:
            parts.append(page.note('No tasks are drawn: this method has no predict function.'))
        else:
            ask = probe.asker(method, state)
            parts.append(tasks.task(test, probe.one_task(ask, test, config)))
            parts.append(tasks.confusion(test, probe.fixed_classes(ask, test, rng)))
        if method.embed is None:
            parts.append(tasks.no_map())
        else:
            parts.append(tasks.map_of(test, probe.embeddings(method, state, test, rng)))
        if method.predict is not None:
            parts.append(tasks.hardest(test, probe.every_class(ask, test, rng)))
    if 'test' in data.roles:
        parts += anyshot.parts(method, state, data, config)
        parts += weak.parts(method, state, data, config, workdir, web)
    if config.get('eval', {}).get('retrieval') and method.similarity and method.embed:
        parts.append(search.results(method, state, data.roles['test'], images, rng))
    parts.append(summary.settings(run, workdir))

    text = page.document(run.title, summary.headline(run, data, parts) + page.join(parts))
    path = workdir / 'report.html'
    files.write_bytes(path, text.encode('utf-8'))
    return path
