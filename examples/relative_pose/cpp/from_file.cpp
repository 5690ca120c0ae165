// Relative poses from a file of Matches messages: for each, its size (uint32) and its CDR bytes, as in a bag.
// One line per message: stamp in s, then rotation row by row and direction; "-" if there is no pose.
#include <fastcdr/Cdr.h>
#include <fastcdr/FastBuffer.h>

#include <cstdint>
#include <cstdio>
#include <fstream>
#include <vector>

#include "feature_frontend_msgs/msg/detail/matches__rosidl_typesupport_fastrtps_cpp.hpp"
#include "relative_pose.hpp"

int main(int argc, char** argv) {
  std::ifstream file(argc == 2 ? argv[1] : "", std::ios::binary);
  if (!file) {
    std::fprintf(stderr, "usage: from_file FILE; expected a file with Matches messages\n");
    return 1;
  }
  for (std::uint32_t size = 0; file.read(reinterpret_cast<char*>(&size), sizeof size);) {
    std::vector<char> bytes(size);
    if (!file.read(bytes.data(), size)) return 1;
    eprosima::fastcdr::FastBuffer buffer(bytes.data(), bytes.size());
    eprosima::fastcdr::Cdr cdr(buffer, eprosima::fastcdr::Cdr::DEFAULT_ENDIAN, eprosima::fastcdr::CdrVersion::DDS_CDR);
    cdr.read_encapsulation();
    feature_frontend_msgs::msg::Matches message;
    if (!feature_frontend_msgs::msg::typesupport_fastrtps_cpp::cdr_deserialize(cdr, message)) return 1;
    std::printf("%d.%09u", message.header.stamp.sec, message.header.stamp.nanosec);
    if (const auto pose = relative_pose::relative_pose(message)) {
      for (const auto& row : pose->rotation) std::printf(" %.17g %.17g %.17g", row[0], row[1], row[2]);
      std::printf(" %.17g %.17g %.17g\n", pose->direction[0], pose->direction[1], pose->direction[2]);
    } else {
      std::printf(" -\n");
    }
  }
  return 0;
}
