#!/bin/bash
# Run suites on Debian 12, Debian 13 and Debian forky, whose Cephs are 16, 18 and
# 20, and print a table. A Debian that this machine is not is installed into a
# folder below /var/cache/nova-rbd-roots first. --help tells more.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/bootstrap.sh
exec "$PYTHON" -m tests.matrix "$@"
