#!/bin/bash
# Show it all on this machine: install, bring a Ceph and an OpenStack up, boot
# guests from RBD, show the proofs, remove it again. --help lists the options.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/bootstrap.sh
"$PYTHON" -m tests.testbed install
exec "$("$PYTHON" -m tests.testbed venv)/bin/python" -m tests.testbed.demo "$@"
