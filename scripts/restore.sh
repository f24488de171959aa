#!/bin/sh
# Restores a backup into an empty place: docs/backup.md
#   scripts/restore.sh FOLDER
set -eu
exec "$(dirname "$0")/program.sh" restore "$@"
