"""LightGlue as a graph: two images' keypoints and descriptors to matches."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

__all__ = ["LightGlueGraph"]


class LightGlueGraph(nn.Module):
    """kornia's network with all of its layers.

    The network itself may stop after fewer layers and leave out points that will hardly match, for speed; a graph
    without conditions cannot, so that its probabilities differ a little.

    Args:
        network: kornia's LightGlue, in evaluation mode, on the CPU.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        keypoints0: torch.Tensor,
        descriptors0: torch.Tensor,
        size0: torch.Tensor,
        keypoints1: torch.Tensor,
        descriptors1: torch.Tensor,
        size1: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Matches of B pairs of images.

        Args:
            keypoints0: (B, M, 2), (x, y) px, of the first image.
            descriptors0: (B, M, 128), L2-normalised.
            size0: (B, 2) float32, (width, height) of the image.
            keypoints1: (B, N, 2), of the second image.
            descriptors1: (B, N, 128).
            size1: (B, 2) float32.

        Returns:
            (B, M) int64, the row in the second image of each point's only mutual match, -1 for none; and (B, M) its
            probability, 0 for none.
        """
        encodings = [self._encoding(*pair) for pair in ((keypoints0, size0), (keypoints1, size1))]
        states0, states1 = self.network.input_proj(descriptors0), self.network.input_proj(descriptors1)
        for layer in self.network.transformers:
            # kornia's attention reshapes by sizes that the tracer would fix; these blocks do the same.
            states0, states1 = (
                _self_attention(layer.self_attn, states, encoding)
                for states, encoding in zip((states0, states1), encodings, strict=True)
            )
            states0, states1 = _cross_attention(layer.cross_attn, states0, states1)
        return _mutual(self._log_probabilities(states0, states1))

    def _encoding(self, keypoints: torch.Tensor, size: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines (B, 1, M, 64), each twice in a row."""
        # Points may lie up to half a pixel outside the pixel centres; the matcher moves them inside, too.
        inside = torch.minimum(keypoints.clamp(min=0.0), (size - 1.0).unsqueeze(1))
        longer = size.max(dim=1, keepdim=True).values.unsqueeze(1)
        projected = self.network.posenc.Wr((inside - size.unsqueeze(1) / 2) / (longer / 2))
        twice = torch.stack([projected, projected], dim=3).flatten(2).unsqueeze(1)
        return torch.cos(twice), torch.sin(twice)

    def _log_probabilities(self, states0: torch.Tensor, states1: torch.Tensor) -> torch.Tensor:
        """(B, M, N) log assignment, without the rows of unmatched points."""
        last = self.network.log_assignment[-1]
        scale = last.dim**0.25
        similarity = (last.final_proj(states0) / scale) @ (last.final_proj(states1) / scale).transpose(1, 2)
        certainty0 = functional.logsigmoid(last.matchability(states0))
        certainty1 = functional.logsigmoid(last.matchability(states1)).transpose(1, 2)
        either = functional.log_softmax(similarity, 2) + functional.log_softmax(similarity, 1)
        return either + certainty0 + certainty1


def _rotated(encoding: tuple[torch.Tensor, torch.Tensor], states: torch.Tensor) -> torch.Tensor:
    cosines, sines = encoding
    even, odd = states[..., 0::2], states[..., 1::2]
    turned = torch.stack([-odd, even], dim=4).flatten(3)
    return states * cosines + turned * sines


def _attended(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Attention of (B, heads, ..., C / heads) states, with the heads joined again: (B, M, C)."""
    weights = torch.softmax(queries @ keys.transpose(2, 3) * queries.shape[3] ** -0.5, dim=3)
    return (weights @ values).transpose(1, 2).flatten(2)


def _self_attention(block: Any, states: torch.Tensor, encoding: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    batch, count, _channels = states.shape
    # (head, channel, query or key or value), innermost last.
    projected = block.Wqkv(states).reshape(batch, count, block.num_heads, block.head_dim, 3).transpose(1, 2)
    queries, keys, values = projected[..., 0], projected[..., 1], projected[..., 2]
    message = block.out_proj(_attended(_rotated(encoding, queries), _rotated(encoding, keys), values))
    updated: torch.Tensor = states + block.ffn(torch.cat([states, message], dim=2))
    return updated


def _cross_attention(block: Any, states0: torch.Tensor, states1: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    def heads(states: torch.Tensor) -> torch.Tensor:
        return states.reshape(states.shape[0], states.shape[1], block.heads, -1).transpose(1, 2)

    keys0, keys1 = heads(block.to_qk(states0)), heads(block.to_qk(states1))
    values0, values1 = heads(block.to_v(states0)), heads(block.to_v(states1))
    message0 = block.to_out(_attended(keys0, keys1, values1))
    message1 = block.to_out(_attended(keys1, keys0, values0))
    return (
        states0 + block.ffn(torch.cat([states0, message0], dim=2)),
        states1 + block.ffn(torch.cat([states1, message1], dim=2)),
    )


def _mutual(log_probabilities: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    best0, best1 = log_probabilities.max(dim=2), log_probabilities.max(dim=1)
    rows = torch.arange(log_probabilities.shape[1]).unsqueeze(0)
    is_mutual = best1.indices.gather(1, best0.indices) == rows
    matches = torch.where(is_mutual, best0.indices, torch.tensor(-1))
    return matches, torch.where(is_mutual, best0.values.exp(), torch.zeros(()))
