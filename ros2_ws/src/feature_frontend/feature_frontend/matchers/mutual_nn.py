"""Mutual nearest neighbours over cosine similarity, with ratio test and double softmax (SiLK paper, appendix B.3)."""

from __future__ import annotations

import torch

from feature_frontend.matchers.base import MatchingOptions, PaddedMatches, check_comparable
from feature_frontend.matchers.nearest_neighbors import Nearest, SimilaritySearch
from feature_frontend.types import Features, Matches

__all__ = ["MutualNearestNeighborMatcher"]

# 64 MiB of float32 similarities: enough for the double softmax of 4,096 x 4,096 descriptors to compute them only once.
_BLOCK_ELEMENTS = 16 * 1024 * 1024


class MutualNearestNeighborMatcher:
    """Keeps mutual nearest neighbours, then applies the gates.

    With the double softmax, nearest means highest probability P_ij = softmax_j(S_ij / T) softmax_i(S_ij / T), and a
    pair also needs a P of at least the threshold.

    Args:
        options: The gates.
        block_elements: Maximum number of similarities in memory at once; does not change the result.
    """

    name = "mnn"

    def __init__(self, options: MatchingOptions, block_elements: int = _BLOCK_ELEMENTS) -> None:
        self.options = options
        self._block_elements = block_elements

    @torch.no_grad()
    def match(self, features0: Features, features1: Features) -> Matches:
        """Matches of two images' features, in the order of `indices0`.

        Args:
            features0: Of the earlier image.
            features1: Of the current image, by the same extractor, on the same device.

        Raises:
            MatchingError: The features come from different extractors, or their descriptors differ in length.
        """
        check_comparable(features0, features1)
        if len(features0) == 0 or len(features1) == 0:
            return Matches.empty(self.name, features1.device)
        # float32 throughout: in half precision near neighbours can tie.
        descriptors0, descriptors1 = features0.descriptors.float(), features1.descriptors.float()
        nearest = self._nearest(SimilaritySearch(descriptors0, descriptors1, self._block_elements))
        # Shapes depend on the number of matches: this is the only place where the CPU waits for a GPU.
        indices0 = self._keep(nearest).nonzero()[:, 0]
        similarity = nearest.similarity[indices0]
        margin = similarity - nearest.second_similarity[indices0]
        return Matches(indices0, nearest.index[indices0], similarity, margin, self.name)

    @torch.no_grad()
    def padded(
        self, descriptors0: torch.Tensor, count0: torch.Tensor, descriptors1: torch.Tensor, count1: torch.Tensor
    ) -> PaddedMatches:
        """The same for descriptors padded to fixed length; waits for nothing on a GPU.

        Args:
            descriptors0: (K0, D), of the earlier image; rows from `count0` on are finite padding.
            count0: () int64, number of valid rows.
            descriptors1: (K1, D), of the current image, on the same device.
            count1: () int64, number of valid rows.
        """
        search = SimilaritySearch(descriptors0.float(), descriptors1.float(), self._block_elements, (count0, count1))
        nearest = self._nearest(search)
        is_real = torch.arange(len(descriptors0), device=descriptors0.device) < count0
        keep = self._keep(nearest) & is_real & (count1 > 0)
        return PaddedMatches(keep, nearest.index, nearest.similarity, nearest.similarity - nearest.second_similarity)

    def _nearest(self, search: SimilaritySearch) -> Nearest:
        if self.options.double_softmax_threshold > 0.0:
            return search.nearest_by_double_softmax(self.options.double_softmax_temperature)
        return search.nearest()

    def _keep(self, nearest: Nearest) -> torch.Tensor:
        """(N0,) bool, whether the nearest neighbour is a match."""
        keep = nearest.is_mutual & (nearest.similarity >= self.options.min_similarity)
        if self.options.ratio_threshold < 1.0:
            second_distance = 1.0 - nearest.second_similarity
            keep &= 1.0 - nearest.similarity < self.options.ratio_threshold * second_distance
        if nearest.probability is not None:
            keep &= nearest.probability >= self.options.double_softmax_threshold
        return keep
