"""Whether the covariances of positions are true: errors on rendered scenes, and the fit of the model's constants."""
