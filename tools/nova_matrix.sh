#!/bin/bash
# Run Nova's own tests, and our tests of the interfaces that Nova calls, for
# each release of Nova, and print a table. --release 30.3.0 selects a release,
# --suite functional|unit|ours a suite.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/bootstrap.sh
exec "$PYTHON" -m tests.nova.matrix "$@"
