# Sourced by the tools. Installs Python's venv module, which a bare Debian
# does not have; tests/testbed/install.py installs everything else.
# Always use Debian's python3, because Ceph's bindings are built for it. The
# python3 in PATH may be another interpreter.
PYTHON=/usr/bin/python3

[ "$(id -u)" = 0 ] || { echo "$0: must run as root: it installs packages" \
    "and makes mount namespaces" >&2; exit 1; }
command -v apt-get >/dev/null || { echo "$0: this is not Debian: there is" \
    "no apt-get (Debian 12, 13 and forky are tested)" >&2; exit 1; }
if ! "$PYTHON" -c 'import venv, ensurepip' 2>/dev/null; then
    echo "==> install python3-venv"
    apt-get -q update
    DEBIAN_FRONTEND=noninteractive apt-get -q -y \
        -o DPkg::Lock::Timeout=600 install --no-install-recommends \
        ca-certificates python3 python3-venv
fi
