"""How the camera moved, from matches: relative pose, its refinement, and which matches fit it."""
