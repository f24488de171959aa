#!/bin/sh
# Backs up Redis, PostgreSQL and the object store into one folder: docs/backup.md
#   scripts/backup.sh [FOLDER]
set -eu
exec "$(dirname "$0")/program.sh" backup "$@"
