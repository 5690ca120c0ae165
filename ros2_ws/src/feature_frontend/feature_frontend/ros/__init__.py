"""The ROS 2 node: only this folder and the tools import rclpy and messages."""
