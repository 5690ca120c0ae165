"""The top-k of maps compared with a full sort."""

from __future__ import annotations

import pytest
import torch

from feature_frontend.extractors.networks.layers.selection import top_k


def _maps(kind: str, batch: int, size: int) -> torch.Tensor:
    values = torch.rand((batch, size), generator=torch.Generator().manual_seed(size))
    if kind == "sparse":
        return torch.where(values > 0.99, values, 0.0)
    if kind == "steps":
        return (values * 20).floor()
    if kind == "ascending":
        return values.sort(dim=1).values
    return torch.zeros_like(values) if kind == "flat" else values


@pytest.mark.parametrize("kind", ["random", "sparse", "steps", "ascending", "flat"])
@pytest.mark.parametrize(
    ("size", "k"),
    [(1, 1), (15, 15), (100, 3), (640 * 480, 1000), (634 * 474, 5000), (634 * 474, 1), (4801, 150), (4801, 4801)],
)
def test_top_k_is_that_of_a_sort(kind: str, size: int, k: int) -> None:
    maps = _maps(kind, 2, size)
    values, positions = top_k(maps, k)
    assert torch.equal(values, maps.sort(dim=1, descending=True).values[:, :k])
    assert torch.equal(maps.gather(1, positions), values)
    assert all(len(set(row.tolist())) == k for row in positions)


def test_the_last_positions_are_searched_where_groups_do_not_cover_them() -> None:
    maps = torch.zeros((1, 16 * 100 + 7))
    maps[0, -7:] = torch.arange(1.0, 8.0)
    assert top_k(maps, 3)[1].tolist() == [[1606, 1605, 1604]]


def test_top_k_runs_under_torch_export_with_one_graph() -> None:
    class Module(torch.nn.Module):
        def forward(self, maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return top_k(maps, 10)

    maps = _maps("random", 1, 4801)
    exported = torch.export.export(Module(), (maps,)).module()
    assert torch.equal(exported(maps.flip(1))[0], maps.topk(10, dim=1).values)
