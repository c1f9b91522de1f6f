#!/bin/bash
# Put faults into the product one by one, run the tests that run the changed
# line, and print the faults that no test notices. Arguments are files or folders
# of nova_rbd_backend; without, the lines that changed since main. Run it once
# with --record before. --help lists the options.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/bootstrap.sh
"$PYTHON" -m tests.testbed install
exec "$("$PYTHON" -m tests.testbed venv)/bin/python" -m tests.mutants "$@"
