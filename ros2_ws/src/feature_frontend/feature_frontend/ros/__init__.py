"""The ROS 2 side: the only folder, beside the tools, that knows rclpy and the messages."""
