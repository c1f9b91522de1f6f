# Sourced by the tools: a bare Debian 12 has no venv module for its Python.
# All else is done by tests/testbed/install.py.
# PATH's python3 may be another interpreter than the one Ceph's bindings are
# built for: always Debian's.
PYTHON=/usr/bin/python3

[ "$(id -u)" = 0 ] || { echo "$0: must run as root: it installs packages" \
    "and makes mount namespaces" >&2; exit 1; }
command -v apt-get >/dev/null || { echo "$0: this is not Debian: there is" \
    "no apt-get (Debian 12 is tested)" >&2; exit 1; }
if ! "$PYTHON" -c 'import venv, ensurepip' 2>/dev/null; then
    echo "==> install python3-venv"
    apt-get -q update
    DEBIAN_FRONTEND=noninteractive apt-get -q -y \
        -o DPkg::Lock::Timeout=600 install --no-install-recommends \
        ca-certificates python3 python3-venv
fi
