"""Camera motion from matches: relative pose, its refinement, and its inliers."""
