"""The blockwise loss compared with the whole matrix, as in Appendix A."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch.nn import functional

from feature_frontend_lab.training.silk.loss import PAPER_TEMPERATURE, matching_loss, silk_loss
from feature_frontend_lab.training.silk.pairs import Correspondences
from tests.conftest import REPOSITORY

_SIDE, _DIM = 9, 5


def _problem(seed: int, count: int) -> tuple[list[torch.Tensor], list[torch.Tensor], Correspondences]:
    generator = torch.Generator().manual_seed(seed)
    size = _SIDE * _SIDE
    logits = [torch.randn(1, _SIDE, _SIDE, generator=generator, dtype=torch.float64) for _ in range(2)]
    descriptors = [torch.randn(_DIM, _SIDE, _SIDE, generator=generator, dtype=torch.float64) for _ in range(2)]
    indices = [torch.randperm(size, generator=generator)[:count] for _ in range(2)]
    # Some pairs alike, so that some of them match and others do not.
    for i, j in list(zip(*indices, strict=True))[::2]:
        descriptors[1].view(_DIM, -1)[:, j] = 3 * descriptors[0].view(_DIM, -1)[:, i] + 0.1
    return logits, descriptors, Correspondences(*indices)


def _naive(
    logits: list[torch.Tensor], descriptors: list[torch.Tensor], correspondences: Correspondences
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    d0, d1 = (d.flatten(1).t() for d in descriptors)
    s = (d0 @ d1.t()) / (d0.norm(dim=1)[:, None] * d1.norm(dim=1)[None, :])
    c, c1 = correspondences.indices0, correspondences.indices1
    log_p = torch.log_softmax(s / PAPER_TEMPERATURE, dim=1) + torch.log_softmax(s / PAPER_TEMPERATURE, dim=0)
    nll = -log_p[c, c1].mean()
    y = ((s[c, c1] >= s.amax(dim=1)[c]) & (s[c, c1] >= s.amax(dim=0)[c1])).double()
    bce = torch.zeros((), dtype=torch.float64)
    for q, where in zip(logits, (c, c1), strict=True):
        chosen = q.flatten()[where]
        bce = bce - (y * functional.logsigmoid(chosen) + (1 - y) * functional.logsigmoid(-chosen)).mean()
    return nll, bce, y.mean()


@pytest.mark.parametrize("count", [1, 40, _SIDE * _SIDE])
@pytest.mark.parametrize("block_rows", [1, 7, 32, 1000, None])
def test_values_and_gradients_are_those_of_the_whole_matrix(count: int, block_rows: int | None) -> None:
    logits, descriptors, correspondences = _problem(seed=count, count=count)
    inputs = [tensor.requires_grad_() for tensor in (*logits, *descriptors)]
    nll, bce, success = _naive(logits, descriptors, correspondences)
    expected = torch.autograd.grad(nll + bce, inputs)
    loss = silk_loss((logits[0], logits[1]), (descriptors[0], descriptors[1]), correspondences, block_rows=block_rows)
    found = torch.autograd.grad(loss.total, inputs)
    torch.testing.assert_close(loss.descriptors, nll, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(loss.keypoints, bce, rtol=1e-12, atol=1e-12)
    assert loss.success == success
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    if count == 40:
        assert 0 < success < 1


def test_gradients_are_those_of_finite_differences() -> None:
    _, descriptors, correspondences = _problem(seed=3, count=20)
    unit = [functional.normalize(d.flatten(1).t(), dim=1).requires_grad_() for d in descriptors]
    assert torch.autograd.gradcheck(lambda a, b: matching_loss(a, b, correspondences, 0.5, 16)[0], unit)


def test_float32_and_half_precision_maps_give_the_same_loss_nearly() -> None:
    logits, descriptors, correspondences = _problem(seed=5, count=40)
    exact = silk_loss((logits[0], logits[1]), (descriptors[0], descriptors[1]), correspondences)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 0.05)):
        maps = [tensor.to(dtype) for tensor in (*logits, *descriptors)]
        loss = silk_loss((maps[0], maps[1]), (maps[2], maps[3]), correspondences)
        assert loss.total.dtype == torch.float32
        torch.testing.assert_close(loss.total.double(), exact.total, rtol=tolerance, atol=0)


def test_impossible_arguments_are_refused() -> None:
    descriptors = torch.eye(4)
    none = Correspondences(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(ValueError, match="no correspondences"):
        matching_loss(descriptors, descriptors, none)
    one = Correspondences(torch.tensor([0]), torch.tensor([0]))
    with pytest.raises(ValueError, match=r"temperature is 0\.01"):
        matching_loss(descriptors, descriptors, one, temperature=0.01)


_PEAK_MEMORY = """
import sys
import torch
from feature_frontend_lab.training.silk.pairs import Correspondences
from feature_frontend_lab.training.silk.loss import matching_loss
from tests.conftest import REPOSITORY
from torch.nn import functional
torch.set_num_threads(1)
size = int(sys.argv[1])
ends = [functional.normalize(torch.randn(size, 32), dim=1).requires_grad_() for _ in range(2)]
every_second = torch.arange(0, size, 2)
loss, _ = matching_loss(*ends, Correspondences(every_second, every_second))
loss.backward()
from tests.memory import peak_mib
print(peak_mib())
"""


def test_memory_stays_flat_as_the_map_grows() -> None:
    def peak_mib(side: int) -> float:
        command = [sys.executable, "-c", _PEAK_MEMORY, str(side * side)]
        return float(subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout)

    # The whole matrix of 82x82 maps has 172 MiB, and autograd would keep several.
    assert peak_mib(82) - peak_mib(8) < 60
