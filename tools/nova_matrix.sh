#!/bin/bash
# Run Nova's own tests, and ours of the Nova edge, for each release of Nova;
# print a table. --release 30.3.0 and --suite functional|unit|ours choose.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/bootstrap.sh
exec "$PYTHON" -m tests.nova.matrix "$@"
