#!/usr/bin/env bash
# Lints every shell script of the repository; reports if shellcheck is not installed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if ! command -v shellcheck >/dev/null; then
  echo "shellcheck: not installed, shell scripts were not checked"
  exit 0
fi
# scripts/setup/ is checked through scripts/setup.sh, which sources it.
mapfile -t files < <(find env.sh .ci scripts docker -path scripts/setup -prune -o -type f \
  \( -name '*.sh' -o -name run -o -name 'entrypoint*' \) -print 2>/dev/null)
shellcheck --external-sources "${files[@]}"
echo "shellcheck: no complaints about ${files[*]}"
