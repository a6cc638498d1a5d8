"""Our bench and the peers' in turns on one machine: medians, and ours over the fastest peer.

    python experiments/side_by_side.py --workload 'ProtoNet, ...' \\
        --ours 'python experiments/bench.py --config=configs/bench_protonet.py --data=random' \\
        --peer 'PEERS/bin/python bench_l2l_proto.py --data pipeline' \\
        --peer 'PEERS/bin/python bench_easyfsl_proto.py --data pipeline' \\
        --out experiments/results/speed.jsonl

Every command ends with one line of JSON on stdout. They run A B C A B C ..., each when the machine
has been quiet for two seconds. A run during which others used the machine is kept as not quiet and
tried again later; medians are of the quiet runs. Lines of the same workload from before are
replaced, others are kept.
"""

import argparse
import json
import os
import resource
import shlex
import subprocess
import sys
import time
from pathlib import Path

import tables
from tables import Line

SPEED_TABLE = tables.load_rows('speed')


def busy_seconds() -> float | None:
    """CPU seconds that anybody has used since boot (Linux; None elsewhere)."""
    try:
        fields = Path('/proc/stat').read_text().split('\n', 1)[0].split()[1:9]
    except OSError:
        return None
    values = [int(v) for v in fields]
    return (sum(values) - values[3] - values[4]) / os.sysconf('SC_CLK_TCK')


def wait_quiet(limit: float, longest: float) -> None:
    """Returns when others have used less than `limit` cores for two seconds, or after `longest`."""
    end = time.monotonic() + longest
    while (before := busy_seconds()) is not None and time.monotonic() < end:
        time.sleep(2)
        if (busy_seconds() or 0) - before <= 2 * limit:
            return
        time.sleep(1)


def children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(command: str, timeout: float) -> Line:
    """The command's JSON line, and how many cores others used meanwhile."""
    cpu, busy, start = children_seconds(), busy_seconds(), time.monotonic()
    done = subprocess.run(
        shlex.split(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        timeout=timeout,
        env={**os.environ, 'PEER_QUIET': '1'},
    )
    wall, cpu = time.monotonic() - start, children_seconds() - cpu
    if done.returncode:
        sys.exit(f'exit code {done.returncode} of: {command}')
    line = json.loads(done.stdout.strip().splitlines()[-1])
    if busy is not None:
        line['others_cores'] = round(((busy_seconds() or 0) - busy - cpu) / wall, 3)
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
    parser.add_argument('--ours', required=True, help='a command line')
    parser.add_argument('--peer', action='append', required=True, help='a command line; repeatable')
    parser.add_argument('--workload', required=True, help='what the table calls the work')
    parser.add_argument('--out', type=Path, required=True, help='a .jsonl')
    parser.add_argument('--repeats', type=int, default=3, help='quiet runs wanted of each')
    parser.add_argument('--tries', type=int, default=3, help='runs of each, at most repeats x this')
    parser.add_argument('--max-others', type=float, default=0.1, help='cores; above is not quiet')
    parser.add_argument('--max-wait', type=float, default=240, help='seconds for a quiet machine')
    parser.add_argument('--timeout', type=float, default=300, help='seconds for one run')
    args = parser.parse_args()
    commands = [args.ours, *args.peer]
    kept = [x for x in tables.read_lines(args.out) if x['workload'] != args.workload]
    lines: list[Line] = []
    quiet, tried = [0] * len(commands), [0] * len(commands)
    while True:
        todo = [
            i
            for i in range(len(commands))
            if quiet[i] < args.repeats and tried[i] < args.repeats * args.tries
        ]
        if not todo:
            break
        for i in todo:
            wait_quiet(args.max_others, args.max_wait)
            line = run(commands[i], args.timeout)
            tried[i] += 1
            line |= {
                'workload': args.workload,
                'ours': i == 0,
                'quiet': line.get('others_cores', 0.0) <= args.max_others,
                'machine': tables.machine(line.get('device', 'cpu'), line.get('num_devices', 1)),
            }
            quiet[i] += line['quiet']
            lines.append(line)
            tables.write_lines(args.out, [*kept, *lines])
            shown = {k: line.get(k) for k, *_ in SPEED_TABLE.SPEED}
            print(
                time.strftime('%H:%M:%S'), line['peer'], shown, line.get('others_cores'), flush=True
            )
    print(SPEED_TABLE.table(lines))


if __name__ == '__main__':
    main()
