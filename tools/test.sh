#!/bin/bash
# Run the linters, then the tests. Without arguments, all tests run in a single
# pytest, whose summary is the last line of the output; tests/e2e runs in
# parallel with all others (tests/conftest.py).
#   --quick        tests/unit, tests/contract, and a few tests on real parts: a
#                  boot, a snapshot and a delete; takes under four minutes
#   --unit         tests/unit, without Ceph, and tests/contract, on a real Ceph
#   --nova         tests/nova: Nova's code, on a real Ceph
#   --functional   tests/functional: a real Ceph, libvirt and QEMU
#   --e2e          tests/e2e: a whole OpenStack
#   --no-linters   only the tests
# Any other argument is passed to pytest instead of the folders.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/bootstrap.sh
"$PYTHON" -m tests.testbed install
export PATH="$("$PYTHON" -m tests.testbed venv)/bin:$PATH"

what=() more=() linters=yes
for word; do
    case $word in
        --quick) what+=(-m quick) ;;
        --unit) what+=(tests/unit tests/contract) ;;
        --functional) what+=(tests/functional) ;;
        --nova) what+=(tests/nova) ;;
        --e2e) what+=(tests/e2e) ;;
        --no-linters) linters= ;;
        *) more+=("$word") ;;
    esac
done
# tests/e2e is first because it takes longest and has a worker of its own.
[ -n "${what[*]}${more[*]}" ] || what=(tests/e2e tests/unit tests/contract tests/nova \
    tests/functional --durations-file .testbed/durations.json)

if [ "$linters" ]; then
    echo "==> ruff check"
    ruff check .
    echo "==> ruff format --check"
    ruff format --check .
    echo "==> flake8 (hacking)"
    flake8 nova_rbd_backend tests benchmarks
    echo "==> mypy"
    mypy
fi
echo "==> pytest ${what[*]} ${more[*]}"
# pytest runs in a process group of its own. A signal is passed to the whole
# group, so that each worker stops the servers that it has started.
set -m
python -m pytest -v -n 3 --no-loadscope-reorder --durations=40 --tb=short \
    "${what[@]}" "${more[@]}" &
trap 'kill -TERM -- -$!' INT TERM
# A signal also ends `wait`, so wait again until pytest has ended.
until wait $!; rc=$?; ! kill -0 $! 2>/dev/null; do :; done
exit $rc
