"""Command-line tools, run by `ros2 run feature_frontend TOOL` and `feature_frontend TOOL`."""
