# Builds ros2_ws with colcon. Sourced after detect.sh.
# shellcheck shell=bash

# Sets up this shell as env.sh does for an interactive one, except for the workspace that is about to be built.
enter_build_environment() {
  unset COLCON_PREFIX_PATH COLCON_CURRENT_PREFIX
  export VIRTUAL_ENV=$venv PATH=$venv/bin:$PATH
  if [[ $mode == wheels ]]; then
    unset PYTHONPATH
    export AMENT_PREFIX_PATH=$venv CMAKE_PREFIX_PATH=$venv _ROS_WHEELS_BOOTSTRAP_COMPLETE=1
    LD_LIBRARY_PATH=$(wheel_library_path "$venv")
    export LD_LIBRARY_PATH
  fi
}

# Setting the path to the wheels' libraries here avoids a second start of every Python by ros_wheels_bootstrapper.
wheel_library_path() {
  printf '%s' "$1/lib"
  find "$1/lib" -maxdepth 3 -name 'ros_*.libs' -printf ':%p'
}

build_workspace() {
  local cmake_options=("-DPython3_EXECUTABLE=$venv/bin/python" -DBUILD_TESTING=OFF --no-warn-unused-cli)
  if [[ $mode == wheels ]]; then
    cmake_options+=("-DCMAKE_PROJECT_INCLUDE=$root/cmake/build_with_wheels.cmake")
  fi
  say "building ros2_ws with colcon"
  # Removed launch files and configurations leave dead links behind, on which the next build would fail.
  find "$workspace/build" "$workspace/install" -xtype l -delete 2>/dev/null || true
  (
    cd "$workspace" || exit
    # With the venv's Python, so that the executables created by colcon use it and find torch.
    required "colcon build" "$venv/bin/python" -m colcon --log-level error build --symlink-install \
      --event-handlers console_direct+ console_cohesion- --cmake-args "${cmake_options[@]}"
  )
}
