"""Free memory of a device."""

import os
from pathlib import Path

import jax


def free_bytes() -> float:
    """Free bytes of a local device: an accelerator's own, on a CPU a share of the machine's."""
    devices = jax.local_devices()
    stats = [d.memory_stats() or {} for d in devices]
    if all('bytes_limit' in s for s in stats):
        return min(s['bytes_limit'] - s['bytes_in_use'] for s in stats)
    return available_memory() / len(devices)


def available_memory() -> float:
    """Bytes that this process may still take: of the machine, or of its container."""
    meminfo = _fields(Path('/proc/meminfo'))
    if 'MemAvailable:' not in meminfo:
        return os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    free = 1024.0 * meminfo['MemAvailable:']
    for folder, most, used in (
        ('/sys/fs/cgroup', 'memory.max', 'memory.current'),
        ('/sys/fs/cgroup/memory', 'memory.limit_in_bytes', 'memory.usage_in_bytes'),
    ):
        try:
            given = float((Path(folder) / most).read_text())
            taken = float((Path(folder) / used).read_text())
        except (OSError, ValueError):  # no container, or no limit: 'max'
            continue
        cached = _fields(Path(folder) / 'memory.stat').get('inactive_file', 0)  # let go of at need
        free = min(free, given - taken + cached)
    return max(free, 0.0)


def _fields(path: Path) -> dict[str, int]:
    """Numbers by name, from lines such as 'MemFree: 123 kB'."""
    if not path.exists():
        return {}
    words = (line.split() for line in path.read_text().splitlines())
    return {w[0]: int(w[1]) for w in words if len(w) > 1 and w[1].isdigit()}
