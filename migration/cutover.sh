#!/usr/bin/env bash
# The cut-over: stop v2, sync the last changes, validate, start the platform, check its health.
#
# Where the stores are comes from the settings (CHAT_MIGRATION__SOURCE, CHAT_MIGRATION__TARGET). The commands that
# stop and start the two systems can be set; a failure before the platform is started starts v2 again.
set -euo pipefail

cd "$(dirname "$0")/.."
python=${PYTHON:-python}
stop_old=${STOP_OLD:-systemctl stop flatfile-chat}
start_old=${START_OLD:-systemctl start flatfile-chat}
start_new=${START_NEW:-systemctl start modular-chat}

back() {
    echo "Cut-over failed; starting the old system again. The new store is kept as it is." >&2
    $start_old
    exit 1
}

echo "Stopping the old system..."
$stop_old

trap back ERR
echo "Running the final migration..."
"$python" migration/run_migration.py --final
echo "Validating..."
"$python" migration/validate.py
trap - ERR

echo "Starting the modular platform..."
$start_new

echo "Checking its health..."
"$python" migration/health_check.py
