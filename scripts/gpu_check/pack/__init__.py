"""`make gpu-pack`: collects what a bare GPU machine lacks in a folder small enough for the transfer."""
