# Creates and fills .venv. Sourced after detect.sh, before torch.sh.
# shellcheck shell=bash

pip() { "$venv/bin/python" -m pip --disable-pip-version-check --no-input "$@"; }

make_venv() {
  local options=()
  # A venv with access to system packages, so that rclpy, numpy and OpenCV come from the distribution.
  [[ $mode == wheels ]] || options=(--system-site-packages)
  say "making .venv with Python $("$python" -c 'import platform; print(platform.python_version())') ($python)"
  required "making .venv" "$python" -m venv --clear "${options[@]}" "$venv"
}

# Files are verified by hash, whatever their source; nothing is built, since a build could download other files. Python
# compiles the modules that it imports: for all of them, that takes longer than to install them.
locked=(--no-deps --require-hashes --no-compile)
locked_wheels=("${locked[@]}" --only-binary :all:)
lock=requirements/lock

install_wheels() {
  say "installing ROS 2 ${ros_distro^}, OpenCV and the tools from PyPI, files as in $lock/ (.venv will take about 1.5 GB, torch included)"
  required "installing the packages in $lock/" pip install "${locked_wheels[@]}" \
    -r "$lock/ros-$ros_distro-wheels.txt" -r $lock/ros-tools.txt -r $lock/runtime.txt -r $lock/lab.txt -r $lock/dev.txt
  required "building $lock/ros-tools-sources.txt" pip install "${locked[@]}" --no-build-isolation --use-pep517 -r $lock/ros-tools-sources.txt
}

# Packages that no pip install may change.
write_constraints() {
  local numpy_major
  # Since version 80, setuptools lacks `develop`, which colcon's --symlink-install uses; torch would install the newest.
  echo 'setuptools<80'
  [[ $mode == ros ]] || return 0
  numpy_major=$("$venv/bin/python" -c 'import numpy; print(numpy.__version__.split(".")[0])' 2>/dev/null) || return 0
  printf 'numpy>=%d,<%d\n' "$numpy_major" $((numpy_major + 1))
}

install_what_ros_lacks() {
  local additions
  mapfile -t additions < <("$venv/bin/python" scripts/setup/missing_modules.py requirements/ros-installed.txt)
  if ((${#additions[@]} == 0)); then
    say "everything besides torch is there already"
    return
  fi
  say "adding what ROS $ros_distro lacks: ${additions[*]}"
  required "installing ${additions[*]}" pip install --constraint "$constraints" "${additions[@]}"
}

install_packages() {
  write_constraints >"$constraints"
  if [[ $mode == wheels ]]; then
    install_wheels
  else
    install_what_ros_lacks
  fi
  install_torch
}
