// The node of ../node.py in C++. This project's tests have no rclcpp and build only relative_pose.hpp.
#include <algorithm>
#include <cmath>
#include <memory>

#include "geometry_msgs/msg/pose_stamped.hpp"
#include "rclcpp/rclcpp.hpp"
#include "relative_pose.hpp"

class RelativePoseNode : public rclcpp::Node {
 public:
  RelativePoseNode() : Node("relative_pose") {
    publisher_ = create_publisher<geometry_msgs::msg::PoseStamped>("relative_pose", 1000);
    subscription_ = create_subscription<feature_frontend_msgs::msg::Matches>(
        "matches", 1000, [this](const feature_frontend_msgs::msg::Matches& message) { take(message); });
  }

 private:
  void take(const feature_frontend_msgs::msg::Matches& message) {
    const auto found = relative_pose::relative_pose(message);
    if (!found) return;
    const auto& r = found->rotation;
    const double w = std::sqrt(std::max(1 + r[0][0] + r[1][1] + r[2][2], 1e-12)) / 2;
    geometry_msgs::msg::PoseStamped pose;
    pose.header = message.header;
    pose.pose.orientation.x = (r[2][1] - r[1][2]) / 4 / w;
    pose.pose.orientation.y = (r[0][2] - r[2][0]) / 4 / w;
    pose.pose.orientation.z = (r[1][0] - r[0][1]) / 4 / w;
    pose.pose.orientation.w = w;
    pose.pose.position.x = found->direction[0];
    pose.pose.position.y = found->direction[1];
    pose.pose.position.z = found->direction[2];
    publisher_->publish(pose);
  }

  rclcpp::Publisher<geometry_msgs::msg::PoseStamped>::SharedPtr publisher_;
  rclcpp::Subscription<feature_frontend_msgs::msg::Matches>::SharedPtr subscription_;
};

int main(int argc, char** argv) {
  rclcpp::init(argc, argv);
  rclcpp::spin(std::make_shared<RelativePoseNode>());
  rclcpp::shutdown();
  return 0;
}
