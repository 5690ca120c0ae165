"""`evaluate`: extractors on warped photographs, front-ends on sequences."""
