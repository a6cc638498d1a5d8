"""MAML by torch.func on the card that experiments/accelerator.py measures: the peer of its item 2.

The same arithmetic as configs/bench_maml.py: Conv4 (3x3 convolutions without bias, batch norm by
the statistics of the images at hand, ReLU, 2x2 max-pooling), a linear head, second order, Adam.
Tasks side by side by vmap(grad), TF32 on, as torch.func's own tutorial does it.
"""

import argparse
import json
import statistics
import time

import torch
import torch.nn.functional as F
from torch.func import grad_and_value, vmap


def parameters(ways: int, width: int, device: str) -> dict[str, torch.Tensor]:
    made, channels = {}, 1
    for i in range(4):
        made[f'conv{i}'] = torch.randn(width, channels, 3, 3, device=device) / (3 * channels**0.5)
        made[f'scale{i}'] = torch.ones(width, device=device)
        made[f'bias{i}'] = torch.zeros(width, device=device)
        channels = width
    made['head'] = torch.randn(ways, width, device=device) / width**0.5
    made['head_bias'] = torch.zeros(ways, device=device)
    return {name: p.requires_grad_() for name, p in made.items()}


def scores(p: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    for i in range(4):
        x = F.conv2d(x, p[f'conv{i}'], padding=1)
        x = F.batch_norm(x, None, None, p[f'scale{i}'], p[f'bias{i}'], training=True)
        x = F.max_pool2d(F.relu(x), 2)
    return F.linear(x.flatten(1), p['head'], p['head_bias'])


def task_loss(p, x_s, y_s, x_q, y_q, steps: int, rate: float) -> torch.Tensor:
    def support(p):
        return F.cross_entropy(scores(p, x_s), y_s)

    for _ in range(steps):
        grads, _ = grad_and_value(support)(p)
        p = {name: value - rate * grads[name] for name, value in p.items()}
    return F.cross_entropy(scores(p, x_q), y_q)


def measure(args: argparse.Namespace) -> dict:
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.manual_seed(0)
    p = parameters(args.ways, args.width, device)
    optimiser = torch.optim.Adam(p.values(), 1e-3)
    batch = lambda queries: (
        torch.rand(args.tasks, args.ways * queries, 1, args.size, args.size, device=device),
        torch.arange(args.ways, device=device).repeat_interleave(queries).expand(args.tasks, -1),
    )
    data = (*batch(1), *batch(args.queries))
    loss = lambda p, x_s, y_s, x_q, y_q: task_loss(p, x_s, y_s, x_q, y_q, args.steps, 0.4)
    mapped = vmap(grad_and_value(loss), (None, 0, 0, 0, 0), chunk_size=args.chunk or None)
    mapped = torch.compile(mapped) if args.compile else mapped

    def step() -> float:
        grads, values = mapped({n: v.detach() for n, v in p.items()}, *data)
        for name, value in p.items():
            value.grad = grads[name].mean(0)
        optimiser.step()
        return float(values.mean())  # waits

    times: list[float] = []
    started = time.perf_counter()
    step()
    first = time.perf_counter() - started
    step()
    while len(times) < 5 and time.perf_counter() - started < args.seconds:
        before = time.perf_counter()
        last = step()
        times.append(time.perf_counter() - before)
    seconds = statistics.median(times) if times else first
    peak = torch.cuda.max_memory_allocated() if device == 'cuda' else None
    return {
        'tasks_per_s': args.tasks / seconds, 'first_s': first, 'peak_bytes': peak,
        'loss': last if times else None, 'torch': torch.__version__, 'device': device,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
    for name, default in (('tasks', 32), ('ways', 5), ('queries', 15), ('steps', 1), ('width', 64),
                          ('size', 28), ('chunk', 0), ('seconds', 10)):  # fmt: skip
        parser.add_argument(f'--{name}', type=int, default=default)
    parser.add_argument('--compile', action='store_true')
    print(json.dumps(measure(parser.parse_args())))


if __name__ == '__main__':
    main()
