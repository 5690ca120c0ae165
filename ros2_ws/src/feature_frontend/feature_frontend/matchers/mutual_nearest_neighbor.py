"""Mutual nearest neighbours over cosine similarity, with ratio test and double softmax (SiLK paper, appendix B.3)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from feature_frontend.matchers.base import MatchingOptions, check_comparable
from feature_frontend.types import Features, Matches

__all__ = ["MutualNearestNeighborMatcher"]

# 64 MiB of float32 similarities, a few of which exist at once: 10,000 x 10,000 descriptors take six blocks, a camera's
# frame pair takes one.
_BLOCK_ELEMENTS = 16 * 1024 * 1024
_NO_SIMILARITY = -1.0


@dataclass(frozen=True)
class _Nearest:
    """For each descriptor of one side: its nearest on the other side and how alike the two nearest are."""

    index: torch.Tensor
    similarity: torch.Tensor
    second_similarity: torch.Tensor


class MutualNearestNeighborMatcher:
    """Keeps the pairs that are each other's most similar, then applies the gates.

    With the double softmax the probability decides who is nearest: P_ij = softmax_j(S_ij / T) softmax_i(S_ij / T), and
    a pair also needs P of at least the threshold.

    Args:
        options: The gates.
        block_elements: Most similarities held at once; the result does not depend on it.
    """

    name = "mnn"

    def __init__(self, options: MatchingOptions, block_elements: int = _BLOCK_ELEMENTS) -> None:
        self.options = options
        self._block_elements = block_elements

    @torch.no_grad()
    def __call__(self, features0: Features, features1: Features) -> Matches:
        """Matches of two images' features, in the order of `indices0`.

        Args:
            features0: Of the earlier image.
            features1: Of the current image, by the same extractor, on the same device.

        Raises:
            MatchingError: The features come from different extractors.
        """
        check_comparable(features0, features1)
        if len(features0) == 0 or len(features1) == 0:
            return Matches.empty(self.name, features1.device)
        # float32 throughout: in half precision near neighbours tie.
        descriptors0, descriptors1 = features0.descriptors.float(), features1.descriptors.float()
        normalizers = self._log_normalizers(descriptors0, descriptors1)
        nearest, probability, backward = self._search(descriptors0, descriptors1, normalizers)
        rows = torch.arange(len(features0), device=features1.device)
        margin = nearest.similarity - nearest.second_similarity
        keep = backward[nearest.index] == rows
        keep &= nearest.similarity >= self.options.min_similarity
        if self.options.ratio_threshold < 1.0:
            second_distance = 1.0 - nearest.second_similarity
            keep &= 1.0 - nearest.similarity < self.options.ratio_threshold * second_distance
        if normalizers is not None:
            keep &= probability >= self.options.double_softmax_threshold
        indices0 = rows[keep]
        return Matches(indices0, nearest.index[keep], nearest.similarity[keep], margin[keep], self.name)

    def _blocks(self, descriptors0: torch.Tensor, descriptors1: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        """First row and similarities (rows, N1) of one horizontal stripe of the similarity matrix after another."""
        rows = max(1, self._block_elements // descriptors1.shape[0])
        for start in range(0, descriptors0.shape[0], rows):
            yield start, descriptors0[start : start + rows] @ descriptors1.T

    def _log_normalizers(
        self, descriptors0: torch.Tensor, descriptors1: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Logarithms of the two softmaxes' denominators, (N0,) and (N1,); None where the double softmax is off."""
        if self.options.double_softmax_threshold <= 0.0:
            return None
        temperature = self.options.double_softmax_temperature
        row_parts = []
        columns = descriptors1.new_full((descriptors1.shape[0],), -torch.inf)
        for _, similarity in self._blocks(descriptors0, descriptors1):
            logits = similarity.div_(temperature)
            row_parts.append(logits.logsumexp(dim=1))
            columns = torch.logaddexp(columns, logits.logsumexp(dim=0))
        return torch.cat(row_parts), columns

    def _search(
        self,
        descriptors0: torch.Tensor,
        descriptors1: torch.Tensor,
        normalizers: tuple[torch.Tensor, torch.Tensor] | None,
    ) -> tuple[_Nearest, torch.Tensor, torch.Tensor]:
        """Nearest of each row, its probability (or similarity), and the index (N1,) of the nearest of each column."""
        parts = []
        best_value = descriptors1.new_full((descriptors1.shape[0],), -torch.inf)
        best_row = torch.zeros(descriptors1.shape[0], dtype=torch.int64, device=descriptors1.device)
        for start, similarity in self._blocks(descriptors0, descriptors1):
            value = similarity
            if normalizers is not None:
                rows, columns = normalizers
                stripe = rows[start : start + similarity.shape[0], None]
                logits = similarity * (2.0 / self.options.double_softmax_temperature)
                value = logits.sub_(stripe).sub_(columns).exp_()
            row_value, row_index = value.max(dim=1)
            two_best = similarity.topk(min(2, similarity.shape[1]), dim=1).values
            parts.append((row_index, row_value, similarity.gather(1, row_index[:, None])[:, 0], two_best))
            column_value, column_index = value.max(dim=0)
            better = column_value > best_value
            best_value = torch.where(better, column_value, best_value)
            best_row = torch.where(better, column_index + start, best_row)
        index, value, similarity, two_best = (torch.cat(column) for column in zip(*parts, strict=True))
        return _Nearest(index, similarity, self._rival(similarity, two_best)), value, best_row

    @staticmethod
    def _rival(similarity: torch.Tensor, two_best: torch.Tensor) -> torch.Tensor:
        """The highest similarity of a row apart from its match; -1 where the row has one entry only."""
        if two_best.shape[1] == 1:
            return torch.full_like(similarity, _NO_SIMILARITY)
        # Under the double softmax the match need not be the most similar: then its rival is the most similar one.
        return torch.where(similarity >= two_best[:, 0], two_best[:, 1], two_best[:, 0])
