"""The best scores of a map without sorting the map."""

from __future__ import annotations

import torch

__all__ = ["top_k"]

# Larger groups leave fewer maxima and more candidates; 16 was the fastest for 1,000 to 5,000 points of 640x480 pixels.
_GROUP_SIZE = 16


def top_k(maps: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `k` highest values of each row, best first: `torch.topk` up to the order of ties, faster on the CPU.

    The elements go into groups. Each of the k groups with the highest maxima holds an element at least as high as
    any element of any other group, so that k best elements lie in these k groups: only they are searched. Shapes do
    not depend on values, and nothing waits for the device.

    Args:
        maps: (B, P).
        k: At most P.

    Returns:
        (B, k) values, and (B, k) int64 positions in the rows.
    """
    batch, size = maps.shape
    num_groups = size // _GROUP_SIZE
    # A GPU's own top-k does not sort the row either; where most groups would be searched, grouping gains nothing.
    if maps.is_cuda or 2 * k > num_groups:
        values, positions = maps.topk(k, dim=1)
        return values, positions
    grouped = num_groups * _GROUP_SIZE
    # Group g holds the positions g, g + num_groups, ...: maxima are then taken over whole vectors.
    maxima = maps[:, :grouped].reshape(batch, _GROUP_SIZE, num_groups).amax(dim=1)
    groups = maxima.topk(k, dim=1, sorted=False).indices
    firsts = torch.arange(0, grouped, num_groups, device=maps.device)
    candidates = (groups[:, None] + firsts[:, None]).flatten(1)
    if grouped < size:
        rest = torch.arange(grouped, size, device=maps.device).expand(batch, -1)
        candidates = torch.cat([candidates, rest], dim=1)
    values, order = maps.gather(1, candidates).topk(k, dim=1)
    return values, candidates.gather(1, order)
