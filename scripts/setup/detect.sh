# Detects ROS 2, Python and the NVIDIA driver of this machine. Sourced after common.sh.
# shellcheck shell=bash

ros_root=${FEATURE_FRONTEND_ROS_ROOT:-/opt/ros}
tried_distributions=(jazzy humble kilted rolling)
# Distributions available as wheels on PyPI, the default first.
wheel_distributions=(jazzy kilted)

# Sets mode (ros or wheels), ros_distro, ros_setup (the file to source; empty in mode wheels) and wheels_asked: the distribution
# of wheels requested by ROS_WHEELS, now or in an earlier set-up of this tree. It takes precedence over an installed ROS.
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
      # In an isolated source build, rclpy has a separate prefix one level below the set-up file.
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

# The properties for which .venv was created; if they change, it is recreated.
venv_kind() { printf '%s' "$mode $ros_distro $ros_setup ${PYTHON:-} $root"; }
venv_is_usable() { stamp_is venv "$(venv_kind)" && "$venv/bin/python" -c '' 2>/dev/null; }

python_version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

# Missing parts of a Python, one word each: venv, headers.
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

# Verified by running it, not by name: pyenv leaves stubs behind that only print an error.
python_fits() {
  if [[ $mode == ros ]]; then
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10)); import rclpy' && "$1" -c 'import rclpy'
  else
    [[ $(python_version "$1") =~ ^3\.1[12]$ ]]
  fi >/dev/null 2>&1
}

# Sets python to the first suitable and complete one, otherwise to the first suitable one, otherwise to nothing. In a virtual
# environment (this project's, if env.sh was sourced), python is the environment's base interpreter.
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
