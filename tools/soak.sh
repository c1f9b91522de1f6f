#!/bin/bash
# Do random actions to the servers of a whole OpenStack while random faults
# happen; then heal and delete all, and check that nothing was lost and nothing
# is left. Options: --minutes N, --seed S (same seed, same plan). See --help.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/bootstrap.sh
"$PYTHON" -m tests.testbed install
exec "$("$PYTHON" -m tests.testbed venv)/bin/python" -m tests.soak "$@"
