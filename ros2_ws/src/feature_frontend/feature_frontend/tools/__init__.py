"""Command-line tools: what `ros2 run feature_frontend TOOL` and `feature_frontend TOOL` run."""
