#!/bin/bash
# Run Tempest's compute tests against this backend on this machine: install the
# packages, start a Ceph, two compute hosts and an OpenStack, run the tests,
# print a report, and remove everything again. --help lists the options.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/bootstrap.sh
"$PYTHON" -m tests.testbed install
exec "$("$PYTHON" -m tests.testbed venv)/bin/python" -m tests.testbed.tempest "$@"
