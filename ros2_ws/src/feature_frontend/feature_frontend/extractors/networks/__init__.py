"""The networks, a file a model, with a second one where it was made fast; SIFT beside them."""
