"""Mutual nearest neighbours, found block by block in one pass over the similarity matrix.

On the CPU a maximum over the matrix costs a tenth of computing it; an argmax down the columns costs more than computing
it. So only maximum values are taken along columns: the best entry of each row is blanked out, and a row's best is also
its column's best if it exceeds everything left in the column.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

__all__ = ["Nearest", "SimilaritySearch"]

# 16 MiB. Each product starts and joins all threads, which is slow if other programs run too: use few large blocks.
_CPU_BLOCK_ELEMENTS = 4 * 1024 * 1024
# 512 KiB: fits the cache of one core over several passes.
_CACHED_ELEMENTS = 128 * 1024
# Terms from exp(-80) up are normal float32 numbers: their sum is as precise as one scaled by its largest term.
_EXPONENT_RANGE = 80.0
_NO_SIMILARITY = -1.0
# Far below every cosine, at every temperature; finite, because the difference of two infinities is NaN.
_PADDING_SIMILARITY = -1e4


@dataclass(frozen=True)
class Nearest:
    """For each of the N0 descriptors of the earlier image, its nearest neighbour among the N1 of the current one.

    Attributes:
        index: (N0,) int64, the nearest neighbour; the first of equals.
        similarity: (N0,) float32, cosine to the nearest neighbour.
        second_similarity: (N0,) float32, highest cosine to any other; -1 if there is no other.
        probability: (N0,) float32, of the nearest neighbour under the double softmax; None without it.
        is_mutual: (N0,) bool, whether the nearest neighbour's nearest is this descriptor; the first of equals counts.
    """

    index: torch.Tensor
    similarity: torch.Tensor
    second_similarity: torch.Tensor
    probability: torch.Tensor | None
    is_mutual: torch.Tensor


class SimilaritySearch:
    """Searches the similarity matrix of two images' descriptors.

    Args:
        descriptors0: (N0, D) float32, of the earlier image, at least one.
        descriptors1: (N1, D) float32, of the current image, at least one, on the same device.
        block_elements: Maximum number of similarities in memory at once; does not change the result.
        counts: () int64 each, number of valid rows of each side, the rest being padding; None: all valid. With counts
            all shapes are fixed and nothing waits for the device; results for padding are undefined.
    """

    def __init__(
        self,
        descriptors0: torch.Tensor,
        descriptors1: torch.Tensor,
        block_elements: int,
        counts: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> None:
        self._descriptors0, self._descriptors1 = descriptors0, descriptors1
        self._num_rows, self._num_columns = descriptors0.shape[0], descriptors1.shape[0]
        self._penalties = None
        if counts is not None:
            self._penalties = _penalty(descriptors0, counts[0]), _penalty(descriptors1, counts[1])
        self._fits = self._num_rows * self._num_columns <= block_elements
        self._on_cpu = descriptors0.device.type == "cpu" and counts is None
        if self._on_cpu:
            block_elements = min(block_elements, _CPU_BLOCK_ELEMENTS)
        rows = max(1, block_elements // self._num_columns)
        # Blocks of equal size: a last block of few rows would use a different kernel, which rounds differently.
        self._block_rows = _divided_up(self._num_rows, _divided_up(self._num_rows, rows))

    def nearest(self) -> Nearest:
        """Nearest neighbours by similarity."""
        return self._search(self._blocks(), None)

    def nearest_by_double_softmax(self, temperature: float) -> Nearest:
        """Nearest neighbours by P_ij = softmax_j(S_ij / T) softmax_i(S_ij / T)."""
        if not self._fits:
            return self._search(self._blocks(), self._double_softmax(self._blocks(), temperature))
        matrix = self._descriptors0.new_empty((self._num_rows, self._num_columns))
        blocks = list(self._blocks(matrix))
        return self._search(blocks, self._double_softmax(blocks, temperature))

    def _buffer(self) -> torch.Tensor:
        return self._descriptors0.new_empty((self._block_rows, self._num_columns))

    def _blocks(self, matrix: torch.Tensor | None = None) -> Iterator[tuple[int, torch.Tensor]]:
        """Yields the first row and the similarities (rows, N1) of each block.

        Blocks are views of `matrix` if it is given; otherwise each overwrites the previous one.
        """
        buffer = self._buffer() if matrix is None else matrix
        for start in range(0, self._num_rows, self._block_rows):
            stripe = self._descriptors0[start : start + self._block_rows]
            first = 0 if matrix is None else start
            block = buffer[first : first + len(stripe)]
            if self._penalties is None:
                yield start, torch.mm(stripe, self._descriptors1.T, out=block)
            else:
                of_rows, of_columns = self._penalties
                torch.addmm(of_columns, stripe, self._descriptors1.T, out=block)
                yield start, block.add_(of_rows[start : start + len(stripe), None])

    def _double_softmax(self, blocks: Iterable[tuple[int, torch.Tensor]], temperature: float) -> _DoubleSoftmax:
        """The double softmax of these blocks; does not change them."""
        buffer, row_parts = self._buffer(), []
        reach = self._reach()
        if 2.0 * reach / temperature <= _EXPONENT_RANGE:
            # With one reference for all terms, one exponential is enough for the sums of rows and of columns.
            sums = self._descriptors1.new_zeros(self._num_columns)
            for _, block in blocks:
                terms = torch.sub(block, reach, out=buffer[: len(block)]).mul_(1.0 / temperature).exp_()
                row_parts.append(terms.sum(dim=1))
                sums += terms.sum(dim=0)
            offset = reach / temperature
            return _DoubleSoftmax(temperature, torch.cat(row_parts).log_() + offset, sums.log_() + offset)
        columns = self._descriptors1.new_full((self._num_columns,), -torch.inf)
        for _, block in blocks:
            logits = torch.mul(block, 1.0 / temperature, out=buffer[: len(block)])
            row_parts.append(logits.logsumexp(dim=1))
            columns = torch.logaddexp(columns, logits.logsumexp(dim=0))
        return _DoubleSoftmax(temperature, torch.cat(row_parts), columns)

    def _reach(self) -> float:
        """Upper bound of the similarities' absolute values; infinite on a GPU, as nothing here may wait for it."""
        if not self._on_cpu:
            return torch.inf
        longest0, longest1 = (float(side.norm(dim=1).max()) for side in (self._descriptors0, self._descriptors1))
        return longest0 * longest1

    def _search(self, blocks: Iterable[tuple[int, torch.Tensor]], softmax: _DoubleSoftmax | None) -> Nearest:
        """Nearest neighbours by similarity or by probability; overwrites the blocks."""
        buffer = None if softmax is None else self._buffer()
        columns = _ColumnMaxima(self._num_columns, self._descriptors1)
        parts = []
        for start, block in blocks:
            value = block if softmax is None else softmax.log_probability(start, block, buffer)
            if self._on_cpu:
                parts.append(_scan_on_cpu(value, block, columns.value))
                continue
            columns.update(start, value)
            best, index = value.max(dim=1)
            entries = index[:, None]
            similarity = block.gather(1, entries)[:, 0]
            parts.append((index, best, similarity, block.scatter_(1, entries, -torch.inf).amax(dim=1)))
        index, best, similarity, second_similarity = (torch.cat(part) for part in zip(*parts, strict=True))
        if self._num_columns == 1:
            second_similarity.fill_(_NO_SIMILARITY)
        elif self._penalties is not None:
            second_similarity.clamp_(min=_NO_SIMILARITY)
        backward = self._backward(index, best, columns.value, softmax) if self._on_cpu else columns.row
        is_mutual = backward[index] == torch.arange(self._num_rows, device=index.device)
        return Nearest(index, similarity, second_similarity, None if softmax is None else best.exp(), is_mutual)

    def _backward(
        self, index: torch.Tensor, best: torch.Tensor, rest: torch.Tensor, softmax: _DoubleSoftmax | None
    ) -> torch.Tensor:
        """The nearest row of each column; N0 if the nearest column of that row is another one.

        Args:
            index: (N0,), each row's nearest column.
            best: (N0,), the entries there.
            rest: (N1,), each column's highest of the other entries.
            softmax: Converts the entries to probabilities; None for similarities.
        """
        highest = torch.full_like(rest, -torch.inf).scatter_reduce_(0, index, best, "amax")
        is_column_best = (best == highest[index]) & (best > rest[index])
        rows = is_column_best.nonzero()[:, 0]
        backward = index.new_full((self._num_columns,), self._num_rows)
        backward.scatter_reduce_(0, index[rows], rows, "amin")
        # With repeated descriptors, an equal entry may be in an earlier row: search again.
        tied = (highest == rest).nonzero()[:, 0]
        if len(tied):
            columns = _ColumnMaxima(len(tied), rest)
            for start, block in self._blocks():
                value = block if softmax is None else softmax.log_probability(start, block)
                columns.update(start, value[:, tied])
            backward[tied] = columns.row
        return backward


@dataclass(frozen=True)
class _DoubleSoftmax:
    """Temperature, and the logarithms of the denominators of rows (N0,) and of columns (N1,)."""

    temperature: float
    rows: torch.Tensor
    columns: torch.Tensor

    def log_probability(self, start: int, block: torch.Tensor, buffer: torch.Tensor | None = None) -> torch.Tensor:
        """Log probabilities of a block of similarities from row `start` on; in `buffer` if given."""
        out = torch.empty_like(block) if buffer is None else buffer[: len(block)]
        rows = self.rows[start : start + len(block), None]
        return torch.add(-rows, block, alpha=2.0 / self.temperature, out=out).sub_(self.columns)


class _ColumnMaxima:
    """Highest entry of each column so far, and the first row that has it."""

    def __init__(self, num_columns: int, like: torch.Tensor) -> None:
        self.value = like.new_full((num_columns,), -torch.inf)
        self.row = torch.zeros(num_columns, dtype=torch.int64, device=like.device)

    def update(self, start: int, block: torch.Tensor) -> None:
        """Adds a block whose first row is `start`."""
        value, row = block.max(dim=0)
        is_better = value > self.value
        self.value = torch.where(is_better, value, self.value)
        self.row = torch.where(is_better, row + start, self.row)


def _scan_on_cpu(
    value: torch.Tensor, similarity: torch.Tensor, column_maxima: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Finds the best entry of each row of a block; sets these entries to -inf.

    Uses NumPy on one core: PyTorch's `argmax` is not vectorised, and distributing such short passes to several threads
    costs as much as it saves.

    Args:
        value: (rows, N1), decides which is nearest.
        similarity: (rows, N1); may be the same tensor.
        column_maxima: (N1,), raised to the highest of the entries that are not their row's best.

    Returns:
        index (rows,) of each row's best entry, its value, its similarity, and the highest other similarity of the row.
    """
    num_rows, num_columns = value.shape
    index = np.empty(num_rows, np.int64)
    best, best_similarity, second_similarity = (np.empty(num_rows, np.float32) for _ in range(3))
    maxima = column_maxima.numpy()
    step = max(1, _CACHED_ELEMENTS // num_columns)
    for start in range(0, num_rows, step):
        rows = slice(start, min(start + step, num_rows))
        values, similarities = value[rows].numpy(), similarity[rows].numpy()
        index[rows] = values.argmax(axis=1)
        entries = np.arange(len(values)), index[rows]
        best[rows], best_similarity[rows] = values[entries], similarities[entries]
        values[entries] = similarities[entries] = -np.inf
        second_similarity[rows] = similarities.max(axis=1)
        np.maximum(maxima, values.max(axis=0), out=maxima)
    return (
        torch.from_numpy(index),
        torch.from_numpy(best),
        torch.from_numpy(best_similarity),
        torch.from_numpy(second_similarity),
    )


def _penalty(descriptors: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """(N,), penalty to add to one side's similarities: 0 for valid rows, below every similarity for padding."""
    is_padding = torch.arange(len(descriptors), device=descriptors.device) >= count
    return is_padding.to(descriptors.dtype) * _PADDING_SIMILARITY


def _divided_up(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)
