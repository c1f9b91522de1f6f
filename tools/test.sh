#!/bin/bash
# Lint, then test. Without arguments everything runs, in one pytest run whose
# closing line comes last.
#   --unit         tests/unit and tests/contract
#   --nova         tests/nova: Nova's code, on a real Ceph
#   --functional   tests/functional: a real Ceph, libvirt and QEMU
#   --e2e          tests/e2e: a whole OpenStack
#   anything else  is handed to pytest in place of the folders
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/bootstrap.sh
"$PYTHON" -m tests.testbed install
export PATH="$("$PYTHON" -m tests.testbed venv)/bin:$PATH"

what=() more=()
for word; do
    case $word in
        --unit) what+=(tests/unit tests/contract) ;;
        --functional) what+=(tests/functional) ;;
        --nova) what+=(tests/nova) ;;
        --e2e) what+=(tests/e2e) ;;
        *) more+=("$word") ;;
    esac
done
[ $# -gt 0 ] || what=(tests/unit tests/contract tests/nova tests/functional \
    tests/e2e)

echo "==> ruff check"
ruff check .
echo "==> ruff format --check"
ruff format --check .
echo "==> flake8 (hacking)"
flake8 nova_rbd_backend tests benchmarks
echo "==> mypy"
mypy
echo "==> pytest ${what[*]} ${more[*]}"
exec python -m pytest -v --durations=40 "${what[@]}" "${more[@]}"
