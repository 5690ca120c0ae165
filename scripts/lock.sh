#!/usr/bin/env bash
# Rebuilds requirements/lock/ from the handwritten files in requirements/: all versions with the SHA-256 of each file, for all
# platforms. From Python 3.11 for the ROS wheels, from 3.10 for an installed ROS. Requires PyPI.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
torch_cpu_index=$(sed -n 's/^torch_cpu_index=//p' scripts/setup/torch.sh)
tools=$PWD/.setup/lock-tool
# Files whose entries are all there is; the others name what they want, and the lock has what that needs.
complete=(ros-jazzy-wheels ros-kilted-wheels ros-tools ros-tools-sources runtime lab dev benchmark cluster colmap fuzz)

say() { printf 'lock: %s\n' "$*"; }

install_uv() {
  local wanted options=(-r requirements/lock-tool.txt)
  wanted=$(grep '^uv==' requirements/lock-tool.txt)
  # A version other than the lock's is being tried: this run determines its hashes.
  if grep -q "^$wanted " requirements/lock/lock-tool.txt; then
    options=(--require-hashes --only-binary :all: -r requirements/lock/lock-tool.txt)
  fi
  [[ -x $tools/bin/python ]] || "${PYTHON:-python3}" -m venv "$tools"
  "$tools/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps "${options[@]}"
}

# compile SOURCE NAME OPTIONS...: one lock, replaced only on success.
compile() {
  local source=$1 target=requirements/lock/$2.txt
  shift 2
  { printf '# Made by make lock from %s; raise versions there.\n' "$source"
    "$tools/bin/uv" pip compile --quiet --no-config --universal --generate-hashes --no-header --no-annotate "$@" "$source"
  } >"$target.new" || { rm -f "$target.new"; return 1; }
  mv "$target.new" "$target"
  say "$target: $(grep -c '^[A-Za-z]' "$target") packages, $(grep -c -- --hash "$target") files"
}

lock_torch_cuda() {
  local shared
  # Versions pinned by runtime.txt, or provided by ROS, are not pinned again.
  mapfile -t shared < <(sed -nE 's/^([A-Za-z0-9._-]+)==.*/--no-emit-package=\1/p' requirements/runtime.txt)
  compile requirements/torch.txt torch-cuda --python-version 3.10 --no-emit-package=setuptools "${shared[@]}" --only-binary :all:
}

lock_torch_cpu() {
  local wanted lock=requirements/lock/torch-cpu.txt
  wanted=$(grep '^torch==' requirements/torch.txt)+cpu
  if printf '%s\n' "$wanted" >"$tools/torch-cpu.in" && compile "$tools/torch-cpu.in" torch-cpu --python-version 3.10 --no-deps \
    --default-index "$torch_cpu_index" 2>"$tools/torch-cpu.log"; then
    sed -i "1s|from .*|from requirements/torch.txt and $torch_cpu_index; raise versions there.|" "$lock"
  elif grep -q "^$wanted " "$lock" 2>/dev/null; then
    say "$torch_cpu_index cannot be read: $lock stays as it is"
  else
    tail -n 5 "$tools/torch-cpu.log" >&2
    say "error: $torch_cpu_index cannot be read, and $lock has no $wanted" >&2
    return 1
  fi
}

mkdir -p .setup requirements/lock
install_uv
for file in requirements/*.txt; do
  name=$(basename "$file" .txt)
  case $name in
    torch | ros-installed) continue ;;
    docs) compile "$file" "$name" --python-version 3.11 && continue ;;
  esac
  case " ${complete[*]} " in
    *" $name "*) compile "$file" "$name" --python-version 3.11 --no-deps ;;
    *) compile "$file" "$name" --python-version 3.10 ;;
  esac
done
lock_torch_cuda
lock_torch_cpu
