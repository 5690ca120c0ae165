# Sets up an interactive shell (bash or zsh) in which the node, the tools and the messages are found:
#   source env.sh
# Safe to repeat. Activates ROS 2 or the wheels' environment, .venv and the built workspace; `make setup` must have run.
# shellcheck shell=bash

_feature_frontend_environment() {
  local root=$1 shell=$2 mode='' ros_setup='' ros_distro='' folder profile

  if [ ! -r "$root/.setup/environment" ] || [ ! -e "$root/ros2_ws/install/local_setup.$shell" ]; then
    echo "env.sh: not set up yet: run 'make setup' in $root first" >&2
    return 1
  fi
  # mode is ros or wheels; ros_setup is ROS's set-up file where mode is ros, ros_distro its distribution or that of the wheels.
  # shellcheck disable=SC1091
  . "$root/.setup/environment"

  # A virtual environment that is moved or copied is not usable: it names its own folder.
  if [ ! -x "$root/.venv/bin/python" ] || ! grep -qF "$root/.venv" "$root/.venv/bin/activate"; then
    echo "env.sh: $root/.venv is missing or was made elsewhere: run 'make setup' in $root" >&2
    return 1
  fi

  if [ "$mode" = ros ]; then
    if [ -z "${ROS_DISTRO:-}" ]; then
      # shellcheck disable=SC1090
      . "${ros_setup%.bash}.$shell"
    fi
    . "$root/.venv/bin/activate"
  else
    . "$root/.venv/bin/activate"
    # What ros_wheels_bootstrapper would do by starting every Python twice. Elsewhere's PYTHONPATH may hold another ROS.
    unset PYTHONPATH
    export ROS_DISTRO="$ros_distro" _ROS_WHEELS_BOOTSTRAP_COMPLETE=1 AMENT_PREFIX_PATH="$VIRTUAL_ENV" CMAKE_PREFIX_PATH="$VIRTUAL_ENV"
    folder=$(find "$VIRTUAL_ENV/lib" -maxdepth 3 -name 'ros_*.libs' -printf '%p:')
    case ":${LD_LIBRARY_PATH:-}:" in
      *":$VIRTUAL_ENV/lib:"*) ;;
      *) export LD_LIBRARY_PATH="$VIRTUAL_ENV/lib:${folder%:}${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" ;;
    esac
  fi
  # shellcheck disable=SC1090
  . "$root/ros2_ws/install/local_setup.$shell"

  # At the end: `play` and `record` are also the names of other programs.
  for folder in feature_frontend feature_frontend_lab; do
    folder=$root/ros2_ws/install/$folder/lib/$folder
    case ":$PATH:" in
      *":$folder:"*) ;;
      *) export PATH="$PATH:$folder" ;;
    esac
  done

  # FastDDS's default shared-memory segment loses most images over 0.5 MB. The names are those of ros/distribution.py: Kilted's
  # Fast DDS 3 has the second, and warns of the first.
  profile=$root/config/fastdds_shared_memory.xml
  case ${ROS_DISTRO:-jazzy} in
    humble | iron | jazzy) export FASTRTPS_DEFAULT_PROFILES_FILE="${FASTRTPS_DEFAULT_PROFILES_FILE:-$profile}" ;;
    *) [ -n "${FASTRTPS_DEFAULT_PROFILES_FILE:-}" ] || export FASTDDS_DEFAULT_PROFILES_FILE="${FASTDDS_DEFAULT_PROFILES_FILE:-$profile}" ;;
  esac
}

# The set-up files of ROS, colcon and venv read unset variables, which `set -u` in the user's shell would make errors.
case $- in
  *u*) _feature_frontend_nounset=-u ;;
  *) _feature_frontend_nounset=+u ;;
esac
set +u
if [ -n "${ZSH_VERSION:-}" ]; then
  # shellcheck disable=SC2296
  eval '_feature_frontend_environment "${${(%):-%x}:A:h}" zsh'
  _feature_frontend_status=$?
elif [ -n "${BASH_VERSION:-}" ]; then
  _feature_frontend_environment "$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)" bash
  _feature_frontend_status=$?
else
  echo "env.sh: this shell is neither bash nor zsh" >&2
  _feature_frontend_status=1
fi
unset -f _feature_frontend_environment
set "$_feature_frontend_nounset"
unset _feature_frontend_nounset
eval "unset _feature_frontend_status; return $_feature_frontend_status"
