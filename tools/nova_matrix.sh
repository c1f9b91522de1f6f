#!/bin/bash
# Run Nova's own tests, ours that call its code, and whole OpenStacks, for
# each release of Nova, and print a table. --release 30.3.0 selects a release,
# --suite functional|unit|ours|demo|e2e a suite. e2e, which takes an hour for
# each release, is run only if it is selected.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/bootstrap.sh
exec "$PYTHON" -m tests.nova.matrix "$@"
