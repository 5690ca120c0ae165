# Finds out what this machine has: ROS 2, a Python, an NVIDIA driver. Sourced after common.sh.
# shellcheck shell=bash

ros_root=${FEATURE_FRONTEND_ROS_ROOT:-/opt/ros}
tried_distributions=(jazzy humble kilted rolling)
# Those that PyPI has as wheels, the usual one first.
wheel_distributions=(jazzy kilted)

# Sets mode (ros or wheels), ros_distro, ros_setup (the file to source; empty in mode wheels) and wheels_asked: the distribution
# whose wheels ROS_WHEELS asks for, or asked for when this tree was set up. They are taken even where a ROS is installed.
detect_ros() {
  wheels_asked=${ROS_WHEELS-$(cat "$state/wheels_asked" 2>/dev/null || true)}
  if [[ -n $wheels_asked && " ${wheel_distributions[*]} " != *" $wheels_asked "* ]]; then
    fail "ROS_WHEELS is '$wheels_asked'; expected one of: ${wheel_distributions[*]}, or nothing"
  fi
  if [[ -n $wheels_asked ]] || ! detect_installed_ros; then
    mode=wheels ros_distro=${wheels_asked:-${wheel_distributions[0]}} ros_setup=''
  fi
}

detect_installed_ros() {
  local prefix distro
  if [[ -n ${ROS_DISTRO:-} && -n ${AMENT_PREFIX_PATH:-} ]]; then
    local IFS=:
    for prefix in $AMENT_PREFIX_PATH; do
      [[ -e $prefix/share/rclpy/package.xml ]] || continue
      # In an isolated source build rclpy has a prefix of its own, one level below the set-up file.
      for ros_setup in "$prefix/setup.bash" "$(dirname "$prefix")/setup.bash"; do
        if [[ -e $ros_setup ]]; then
          mode=ros ros_distro=$ROS_DISTRO
          return
        fi
      done
    done
  fi
  for distro in ${ROS_DISTRO:-} "${tried_distributions[@]}"; do
    if [[ -e $ros_root/$distro/setup.bash ]]; then
      mode=ros ros_distro=$distro ros_setup=$ros_root/$distro/setup.bash
      return
    fi
  done
  return 1
}

# ROS's set-up files read unset variables.
source_ros() {
  set +u
  # shellcheck disable=SC1090
  source "$ros_setup"
  set -u
}

# What .venv was made for; with anything else it has to be made anew.
venv_kind() { printf '%s' "$mode $ros_distro $ros_setup ${PYTHON:-} $root"; }
venv_is_usable() { stamp_is venv "$(venv_kind)" && "$venv/bin/python" -c '' 2>/dev/null; }

python_version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

# Which of a Python's parts are missing, one word each: venv, headers.
python_missing_parts() {
  "$1" - <<'PY'
import os
import sysconfig

try:
    import ensurepip, venv
except ImportError:
    print("venv")
if not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")):
    print("headers")
PY
}

# Asks a Python rather than its name: pyenv leaves names behind that only print an error.
python_fits() {
  if [[ $mode == ros ]]; then
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10)); import rclpy' && "$1" -c 'import rclpy'
  else
    [[ $(python_version "$1") =~ ^3\.1[12]$ ]]
  fi >/dev/null 2>&1
}

# Sets python, to the first that fits and is whole, else to the first that fits, else to nothing. In a virtual environment
# (this project's own, where env.sh was sourced) python is what the environment was made from.
detect_python() {
  local candidate candidates first=''
  if venv_is_usable; then
    candidates=("$venv/bin/python")
  elif [[ -n ${PYTHON:-} ]]; then
    candidates=("$PYTHON")
  elif [[ $mode == ros ]]; then
    candidates=(/usr/bin/python3 python3)
  else
    candidates=(python3 python3.11 python3.12 /usr/bin/python3 /usr/bin/python3.11 /usr/bin/python3.12)
  fi
  for candidate in "${candidates[@]}"; do
    python_fits "$candidate" || continue
    python=$("$candidate" -c 'import os, sys; print(os.path.realpath(sys._base_executable))')
    [[ -n $(python_missing_parts "$python") ]] || return 0
    first=${first:-$python}
  done
  python=$first
}

has_nvidia_driver() { [[ -e /proc/driver/nvidia/version ]] || nvidia-smi -L >/dev/null 2>&1; }
is_jetson() { [[ -e /etc/nv_tegra_release ]]; }
