#!/bin/bash
# Measure this backend, Nova's own backend and the bare librbd calls, on a
# throwaway Ceph. Nothing is asserted.
#   tools/benchmark.sh                     all but end_to_end; half an hour
#   tools/benchmark.sh --end-to-end        also end_to_end, on a whole OpenStack
#   tools/benchmark.sh pool_size --quick   one benchmark, with small sizes
# --help lists the other options. This command makes the tables and plots of the
# documentation:
#   tools/benchmark.sh --end-to-end --json doc/source/measurements.json \
#       --plots doc/source/images --rst doc/source/measurements
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/bootstrap.sh
"$PYTHON" -m tests.testbed install
python="$("$PYTHON" -m tests.testbed venv)/bin/python"
if [[ " $* " == *" --plots "* ]] && ! "$python" -c 'import matplotlib' \
        2>/dev/null; then
    echo "==> install matplotlib, for --plots"
    "$python" -m pip install -q -r benchmarks/requirements.txt
fi
exec "$python" -W ignore -m benchmarks "$@"
