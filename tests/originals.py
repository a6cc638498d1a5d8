"""The PyTorch originals that nets are checked against."""

import types

import numpy as np
import pytest


def need(name: str) -> types.ModuleType:
    """The package of that name, beside PyTorch; the test is skipped where it can't be had."""
    reason = f'the originals are in {name}'
    torch = pytest.importorskip('torch', reason=reason)
    for op in ('nms', 'qnms'):  # lets a torchvision built for CUDA load beside a CPU build
        try:
            torch.library.define(f'torchvision::{op}', '(Tensor a, Tensor b, float c) -> Tensor')
        except RuntimeError:  # is there
            continue
    return pytest.importorskip(name, reason=reason, exc_type=ImportError)


def relative(got, want: np.ndarray) -> float:
    """max|got - want| / max|want|."""
    assert got.shape == want.shape
    return np.abs(np.asarray(got, np.float32) - want).max() / np.abs(want).max()
