# Lists all missing prerequisites at once, before changing anything. Sourced after detect.sh.
# shellcheck shell=bash

missing=()     # descriptions
apt=()         # the packages that provide them

lacks() {
  missing+=("$1")
  shift
  apt+=("$@")
}

check_compiler() {
  local program
  for program in "${CC:-cc}" "${CXX:-c++}" make; do
    command -v "$program" >/dev/null || { lacks "a C and C++ compiler with make" build-essential && return; }
  done
}

check_cmake() {
  local version
  version=$(cmake --version 2>/dev/null | sed -n '1s/[^0-9]*\([0-9.]*\).*/\1/p') || true
  if [[ -z $version ]]; then
    lacks "CMake 3.21 or newer" cmake
  elif [[ $(printf '3.21\n%s\n' "$version" | sort -V | head -n 1) != 3.21 ]]; then
    lacks "CMake 3.21 or newer (found $version; where apt has none, 'pip install cmake' does)" cmake
  fi
}

check_python() {
  local name part
  if [[ -z $python && $mode == ros ]]; then
    lacks "a Python 3.10 or newer that can import rclpy (with $ros_setup sourced)" "ros-$ros_distro-ros-base"
  elif [[ -z $python ]]; then
    name=python3.12
    apt-cache show "$name" >/dev/null 2>&1 || name=python3.11
    lacks "Python 3.11 or 3.12 (${PYTHON:-python3} is ${found_python:-not usable}; set PYTHON=/path/to/python to name one)" \
      "$name" "$name-venv" "$name-dev"
  else
    name=python$(python_version "$python")
    for part in $(python_missing_parts "$python"); do
      case $part in
        venv) lacks "Python's venv and ensurepip modules (for $python)" "$name-venv" ;;
        headers) lacks "Python's headers (for $python)" "$name-dev" ;;
      esac
    done
  fi
}

# Requirements of the build and the node for an installed ROS; others (cv_bridge, rosbag2) are optional.
check_ros_packages() {
  local package prefix found
  for package in rclpy ament_cmake rosidl_default_generators sensor_msgs std_msgs builtin_interfaces rosgraph_msgs; do
    found=''
    local IFS=:
    for prefix in ${AMENT_PREFIX_PATH:-}; do
      [[ -e $prefix/share/$package/package.xml ]] && found=yes
    done
    [[ -n $found ]] || lacks "the ROS package $package" "ros-$ros_distro-${package//_/-}"
  done
  if [[ -n $python ]] && ! "$python" -c 'import colcon_core, colcon_ros' 2>/dev/null; then
    lacks "colcon (for $python)" python3-colcon-common-extensions
  fi
}

check_prerequisites() {
  local found_python item
  found_python=$(python_version "${PYTHON:-python3}") || true
  if [[ $mode == wheels && "$(uname -s) $(uname -m)" != "Linux x86_64" ]]; then
    fail "no ROS 2 was found under $ros_root, and its wheels exist for x86-64 Linux only (this is $(uname -s) $(uname -m))" \
      "Install ROS 2 (https://docs.ros.org/en/jazzy/Installation.html), or use the container in docker/."
  fi
  check_compiler
  check_cmake
  check_python
  [[ $mode != ros ]] || check_ros_packages
  ((${#missing[@]})) || return 0
  printf 'setup: error: missing on this machine:\n' >&2
  for item in "${missing[@]}"; do printf '         - %s\n' "$item" >&2; done
  printf '       Install it, then run make setup again:\n         sudo apt install %s\n' "${apt[*]}" >&2
  exit 1
}
