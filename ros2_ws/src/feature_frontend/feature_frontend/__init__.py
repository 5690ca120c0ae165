"""Feature Frontend: ALIKED keypoints, descriptors, matches and tracks, with or without ROS 2.

from feature_frontend import load_extractor, load_matcher

extractor = load_extractor("aliked-n16", device="cpu", max_num_keypoints=1000)
matcher = load_matcher("mnn")
matches = matcher(extractor(image0), extractor(image1))
"""

from feature_frontend.api import load_extractor, load_matcher
from feature_frontend.types import Features, Matches, Tracks

__all__ = ["Features", "Matches", "Tracks", "__version__", "load_extractor", "load_matcher"]

__version__ = "0.1.0"
