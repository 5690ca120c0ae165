"""Odometry from tracks, without ROS: visual-inertial on GTSAM, and monocular."""
