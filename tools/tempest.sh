#!/bin/bash
# Run Tempest's compute tests against this backend on this machine: install,
# bring a Ceph, two compute hosts and an OpenStack up, run, report, remove it
# all again. --help lists the options.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/bootstrap.sh
"$PYTHON" -m tests.testbed install
exec "$("$PYTHON" -m tests.testbed venv)/bin/python" -m tests.testbed.tempest "$@"
