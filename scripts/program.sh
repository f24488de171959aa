#!/bin/sh
# Runs the command line that `make run` has installed, or the one on PATH.
set -eu
own="$(dirname "$0")/../${VENV:-.venv}/bin/inferstack"
for program in "$own" inferstack; do
  if command -v "$program" >/dev/null; then exec "$program" "$@"; fi
done
echo "inferstack is not installed: run \`make run\` once, or pip install 'inferstack[all]'" >&2
exit 1
