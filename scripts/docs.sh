#!/usr/bin/env bash
# `make docs`: builds docs/ into docs_output/ with tools in .setup/docs. Works offline once these are installed.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
tools=.setup/docs
lock=requirements/lock/docs.txt

if ! cmp -s "$lock" "$tools/lock.txt"; then
  [[ -x $tools/bin/python ]] || "${PYTHON:-python3}" -m venv "$tools"
  "$tools/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary :all: -r "$lock"
  cp "$lock" "$tools/lock.txt"
fi
# Suppresses mkdocs-material's announcement of a successor in each build.
NO_MKDOCS_2_WARNING=1 "$tools/bin/python" -m mkdocs build --quiet --strict
printf 'docs: open docs_output/index.html\n'
