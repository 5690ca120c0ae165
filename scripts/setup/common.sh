# Paths and output functions of the set-up scripts. Sourced, never run.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
venv=$root/.venv
workspace=$root/ros2_ws
# State kept between runs: stamps, the log, and `environment`, which env.sh reads.
state=$root/.setup
log=$state/setup.log
constraints=$state/constraints.txt

say() { printf 'setup: %s\n' "$*"; }

fail() {
  printf 'setup: error: %s\n' "$1" >&2
  shift
  for line in "$@"; do [[ -z $line ]] || printf '       %s\n' "$line" >&2; done
  exit 1
}

# Runs a command quietly; its output goes to the log.
logged() {
  printf '\n$ %s\n' "$*" >>"$log"
  "$@" >>"$log" 2>&1
}

# The same for a command that must succeed: on failure, prints the end of its output.
required() {
  local what=$1 start
  shift
  start=$(($(wc -c <"$log") + 1))
  logged "$@" && return
  tail -c "+$start" "$log" | grep -v 'is ignored: it is neither a file nor a directory' | tail -n 25 >&2
  fail "$what failed; the lines above are the end of $log" "$(refused_files)"
}

# Instructions if a file did not match requirements/lock/; pip's own advice is wrong here.
refused_files() {
  grep -q 'DO NOT MATCH THE HASHES' "$log" || return 0
  printf '%s' "A file is not the one that requirements/lock/ names ('Expected sha256' in $log). It was not installed. The index or folder
       that it came from (pip config list; PIP_FIND_LINKS) was tampered with, is damaged, or repacks wheels: use another."
}

# Hashes of files' names and contents, of a list of names, of standard input.
hash_files() { (cd "$root" && sha256sum -- "$@") | hash_input; }
hash_input() { sha256sum | cut -c 1-16; }
stamp_is() { [[ -r $state/$1.stamp && $(<"$state/$1.stamp") == "$2" ]]; }
write_stamp() { printf '%s\n' "$2" >"$state/$1.stamp"; }

elapsed() { printf '%d s' $((SECONDS - ${1:-0})); }
