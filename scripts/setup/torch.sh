# Selects and installs torch: keeps a suitable installed one; otherwise installs the CPU build without an NVIDIA driver, and the
# CUDA build with one. TORCH_BUILD=cpu|cuda|none overrides the choice. Sourced after packages.sh.
# shellcheck shell=bash

torch_cpu_index=https://download.pytorch.org/whl/cpu

wanted_torch_build() {
  if [[ -n ${TORCH_BUILD:-} ]]; then
    printf '%s' "$TORCH_BUILD"
  elif is_jetson; then
    printf 'jetson'
  elif has_nvidia_driver; then
    printf 'cuda'
  else
    printf 'cpu'
  fi
}

# Prints "<version> <cpu|cuda>" of an installed torch >= 2.4, otherwise nothing.
installed_torch() {
  "$venv/bin/python" - 2>/dev/null <<'PY' || true
import re
import torch

if tuple(map(int, re.match(r"(\d+)\.(\d+)", torch.__version__).groups())) >= (2, 4):
    print(torch.__version__, "cuda" if torch.version.cuda else "cpu")
PY
}

# Dependencies of torch besides numpy; in mode wheels, requirements/runtime.txt contains them.
install_torch_dependencies() {
  [[ $mode == ros ]] || return 0
  logged pip install --constraint "$constraints" filelock fsspec jinja2 networkx setuptools 'sympy>=1.13.3' 'typing_extensions>=4.10'
}

# Whether this version, such as 2.13.0+cpu, is installed; pip also succeeds if the lock has no file for this Python.
torch_is() { [[ $("$venv/bin/python" -c 'import importlib.metadata as m; print(m.version("torch"))' 2>/dev/null) == "$1" ]]; }

# A local wheel (pip's find-links) needs no network.
install_from_find_links_or_index() {
  logged pip install "$@" --no-index || logged pip install "$@" --retries 1 --timeout 20 --index-url "$torch_cpu_index"
}

# Never from PyPI: its torch for x86-64 is the CUDA build, several GB with its dependencies.
install_torch_cpu() {
  install_torch_dependencies
  install_from_find_links_or_index "${locked_wheels[@]}" -r $lock/torch-cpu.txt || return
  torch_is "${1#torch==}+cpu" && return
  say "$lock/torch-cpu.txt names no file for this Python: it is believed as $torch_cpu_index or PIP_FIND_LINKS gives it"
  install_from_find_links_or_index --no-deps --only-binary :all: "$1+cpu"
}

install_torch_cuda() {
  install_torch_dependencies
  logged pip install "${locked_wheels[@]}" -r $lock/torch-cuda.txt
}

install_torch() {
  local build requirement present
  build=$(wanted_torch_build)
  requirement=$(grep '^torch==' requirements/torch.txt)
  present=$(installed_torch)
  case $build in
    none)
      say "leaving torch alone (TORCH_BUILD=none): found ${present:-none that fits}"
      return
      ;;
    cpu | cuda | jetson) ;;
    *) fail "TORCH_BUILD is '$build'; expected cpu, cuda or none" ;;
  esac
  if [[ -n $present && ($build != cuda || $present == *cuda) ]]; then
    say "keeping torch $present"
    return
  fi
  if [[ $build == jetson ]]; then
    fail "this is a Jetson, and its Python has no torch >= 2.4" \
      "torch from PyPI does not use a Jetson's GPU. Install NVIDIA's build for your JetPack for $venv/bin/python or the system's Python" \
      "(https://docs.nvidia.com/deeplearning/frameworks/install-pytorch-jetson-platform/), then run make setup again."
  fi
  if [[ $build == cuda ]]; then
    say "installing $requirement with CUDA (several GB)"
    install_torch_cuda || {
      [[ -n $present ]] || fail "the CUDA build of torch could not be installed; see $log" "TORCH_BUILD=cpu make setup takes the CPU build." \
        "$(refused_files)"
      say "the CUDA build could not be installed (see $log): keeping torch $present" "$(refused_files)"
    }
  else
    say "installing $requirement, the CPU build (no NVIDIA driver here)"
    install_torch_cpu "$requirement" ||
      fail "the CPU build of torch ($requirement+cpu) could not be installed for $("$venv/bin/python" -V); see $log" \
        "It is fetched from $torch_cpu_index, or taken from a folder that PIP_FIND_LINKS names." \
        "TORCH_BUILD=cuda make setup takes PyPI's CUDA build (several GB), which runs on the CPU too; TORCH_BUILD=none leaves torch to you." \
        "$(refused_files)"
  fi
  present=$(installed_torch)
  [[ -n $present ]] || fail "torch was installed, but cannot be imported:" "$("$venv/bin/python" -c 'import torch' 2>&1 | tail -n 1)"
  say "torch $present"
}
