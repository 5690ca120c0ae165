#!/usr/bin/env bash
# Sets up the project: .venv, torch, the built workspace. `make setup` runs it; every other target runs it first.
# Can be repeated; only does what has changed. Variables: PYTHON, TORCH_BUILD=cpu|cuda|none, ROS_WHEELS=jazzy|kilted,
# FEATURE_FRONTEND_ROS_ROOT (default /opt/ros).
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup/common.sh
source scripts/setup/detect.sh
source scripts/setup/prerequisites.sh
source scripts/setup/packages.sh
source scripts/setup/torch.sh
source scripts/setup/workspace.sh
mkdir -p "$state"
# Prevents two set-ups at once (two terminals, two make targets) from overwriting each other.
exec 9>"$state/lock"
command -v flock >/dev/null && { flock -n 9 || { say "waiting for another set-up to end"; flock 9; }; }

detect_ros
printf '%s\n' "$wheels_asked" >"$state/wheels_asked"

# Inputs of the installed packages. A moved checkout needs a new .venv, which contains absolute paths.
packages_hash=$({
  hash_files requirements/*.txt requirements/lock/*.txt scripts/setup/{detect,packages,torch,workspace}.sh
  printf '%s\n' "$root" "$mode" "$ros_distro" "$ros_setup" "${PYTHON:-}" "$(wanted_torch_build)"
} | hash_input)

# Inputs of the built workspace: for Python modules, launch files and configurations only the list matters, since colcon
# links to the files.
package=ros2_ws/src/feature_frontend
lab=ros2_ws/src/feature_frontend_lab
workspace_hash=$({
  printf '%s\n' "$packages_hash"
  find ros2_ws/src/feature_frontend_msgs cmake -type f -print0 | sort -z | xargs -0 sha256sum
  sha256sum {$package,$lab}/{package.xml,setup.py,setup.cfg}
  find $package/launch $package/config -maxdepth 1 -type f | sort
} | hash_input)

if [[ -x $venv/bin/python ]] && stamp_is packages "$packages_hash" && stamp_is workspace "$workspace_hash" &&
  [[ -e $workspace/install/local_setup.bash ]]; then
  say "up to date"
  exit 0
fi

: >"$log"
if [[ $mode == ros ]]; then
  say "using ROS 2 $ros_distro ($ros_setup)"
  source_ros
elif [[ -n $wheels_asked ]]; then
  say "using ROS 2 ${ros_distro^} from PyPI wheels, in .venv, as ROS_WHEELS asks or asked ('make setup ROS_WHEELS=' takes what there is)"
else
  say "no ROS 2 under $ros_root: using ROS 2 ${ros_distro^} from PyPI wheels, in .venv"
fi
detect_python
check_prerequisites

if ! venv_is_usable || ! stamp_is packages "$packages_hash"; then
  if ! venv_is_usable; then
    rm -rf "$state"/*.stamp "$workspace/build" "$workspace/install" "$workspace/log"
    make_venv
    write_stamp venv "$(venv_kind)"
  fi
  install_packages
  write_stamp packages "$packages_hash"
fi
printf '%s\n' "mode=$mode" "ros_setup=$ros_setup" "ros_distro=$ros_distro" >"$state/environment"
enter_build_environment
build_workspace
write_stamp workspace "$workspace_hash"
say "done in $(elapsed); 'source env.sh' gives a shell in which everything is found"
