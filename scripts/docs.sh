#!/usr/bin/env bash
# `make docs`: the site of docs/ into docs_output/, by tools in an environment of their own (.setup/docs). Neither needs a network once installed.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
tools=.setup/docs
lock=requirements/lock/docs.txt

if ! cmp -s "$lock" "$tools/lock.txt"; then
  [[ -x $tools/bin/python ]] || "${PYTHON:-python3}" -m venv "$tools"
  "$tools/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary :all: -r "$lock"
  cp "$lock" "$tools/lock.txt"
fi
# mkdocs-material announces a successor in each build.
NO_MKDOCS_2_WARNING=1 "$tools/bin/python" -m mkdocs build --quiet --strict
printf 'docs: open docs_output/index.html\n'
