#!/usr/bin/env bash
# `make test-kilted`: a short part of the DDS tests on ROS 2 Kilted, too: an image, its results, a parameter. rclpy, Fast DDS 3 and
# the messages are Kilted's, in .setup/kilted; everything else is from .venv, made by `make setup` with Jazzy's wheels. Arguments go
# to pytest. The whole suite on Kilted: `make setup ROS_WHEELS=kilted` in a separate checkout, then `make test`.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup/common.sh
lock=requirements/lock/ros-kilted-wheels.txt
kilted=$state/kilted
log=$state/kilted.log
tests=(tests/ros/test_node.py -k "contract or live_parameters_act")

if ! { grep -qx mode=wheels "$state/environment" && grep -qx ros_distro=jazzy "$state/environment"; }; then
  say "kilted: not run: this checkout's .venv was not made with Jazzy's wheels, which the tests' other packages come from"
  exit 0
fi

# Kilted's packages come before those of .venv, which include Jazzy's.
make_environment() {
  local site
  rm -rf "$kilted"
  required "making $kilted" "$venv/bin/python" -m venv --without-pip "$kilted"
  site=$("$kilted/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
  if ! logged "$venv/bin/python" -m pip --disable-pip-version-check --python "$kilted/bin/python" install --no-deps --require-hashes \
    --only-binary :all: -r "$lock"; then
    [[ -z $(refused_files) ]] || fail "Kilted's wheels are not those of $lock; see $log" "$(refused_files)"
    say "kilted: not run: its wheels cannot be had here (see $log)"
    exit 0
  fi
  "$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])' >"$site/of_venv.pth"
}

# As in env.sh.
enter_environment() {
  local libraries
  unset PYTHONPATH
  libraries=$kilted/lib:$kilted/messages/lib$(find "$kilted/lib" -maxdepth 3 -name 'ros_*.libs' -printf ':%p')
  export ROS_DISTRO=kilted VIRTUAL_ENV=$kilted PATH=$kilted/bin:$venv/bin:$PATH AMENT_PREFIX_PATH=$kilted CMAKE_PREFIX_PATH=$kilted \
    LD_LIBRARY_PATH=$libraries _ROS_WHEELS_BOOTSTRAP_COMPLETE=1
}

build_messages() {
  local build=$kilted/build
  required "configuring the messages for Kilted" cmake -S ros2_ws/src/feature_frontend_msgs -B "$build" -DBUILD_TESTING=OFF \
    "-DCMAKE_INSTALL_PREFIX=$kilted/messages" "-DPython3_EXECUTABLE=$kilted/bin/python" \
    "-DCMAKE_PROJECT_INCLUDE=$root/cmake/build_with_wheels.cmake"
  required "building the messages for Kilted" cmake --build "$build" --parallel "$(nproc)" --target install
}

hash=$({ hash_files "$lock" scripts/test_kilted.sh cmake/*.cmake && find ros2_ws/src/feature_frontend_msgs -type f -print0 | sort -z |
  xargs -0 sha256sum && printf '%s\n' "$root" "$("$venv/bin/python" -V)"; } | hash_input)
if ! stamp_is kilted "$hash"; then
  : >"$log"
  say "kilted: making $kilted: ROS 2 Kilted from PyPI, files as in $lock, and its messages"
  make_environment
  enter_environment
  build_messages
  write_stamp kilted "$hash"
else
  enter_environment
fi
PYTHONPATH=$root/ros2_ws/src/feature_frontend:$root/ros2_ws/src/feature_frontend_lab:$(echo "$kilted"/messages/lib/python*/site-packages)
export PYTHONPATH
python - <<'PY'
import importlib.metadata
import feature_frontend_msgs, rclpy
for module in (rclpy, feature_frontend_msgs):
    assert "/.setup/kilted/" in module.__file__, f"{module.__file__} is not Kilted's"
print(f"setup: kilted: rclpy {importlib.metadata.version('ros-rclpy')}, Fast DDS {importlib.metadata.version('ros-fastdds')}")
PY
(($#)) || set -- "${tests[@]}"
exec python -m pytest -q "$@"
