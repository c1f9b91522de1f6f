#!/bin/bash
# Measure this backend beside Nova's own, and the bare calls beside both, on a
# throwaway Ceph. Nothing is asserted.
#   tools/benchmark.sh                     all but end_to_end, half an hour
#   tools/benchmark.sh --end-to-end        that too: a whole OpenStack
#   tools/benchmark.sh pool_size --quick   one, on small sizes
# --help lists the rest. The figures and plots of the documentation:
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
