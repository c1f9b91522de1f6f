#!/bin/bash
# Demonstrate the backend on this machine: install the packages, start a Ceph
# and an OpenStack, boot guests from RBD, show the results, and remove
# everything again. --help lists the options.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/bootstrap.sh
"$PYTHON" -m tests.testbed install
exec "$("$PYTHON" -m tests.testbed venv)/bin/python" -m tests.testbed.demo "$@"
