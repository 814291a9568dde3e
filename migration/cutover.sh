#!/usr/bin/env bash
# The cut-over: stop v2, sync the last changes, validate, start the platform, check its health.
#
#   migration/cutover.sh [plan|start|status|continue|abort] [options of `modchat migrate cutover`]
#
# Where the stores are comes from the settings (CHAT_MIGRATION__SOURCE, CHAT_MIGRATION__TARGET). The commands that
# stop and start the two systems can be set: STOP_OLD, START_OLD, STOP_NEW, START_NEW, READY, HEALTH; so can BACKUPS, a
# directory for a backup of v2. A failure before the platform is started starts v2 again. See docs/cutover.md.
set -euo pipefail

exec "${PYTHON:-python}" "$(dirname "$0")/cutover_script.py" "$@"
