#!/bin/bash
# enter.sh ROOT HOST-NAME CHECKOUT CHECKOUT-INSIDE TMP BUNDLE VARIABLES \
#     [PATH[:INSIDE]...] -- COMMAND...
# Run a command in a root. Started by roots.py in namespaces of its own, as
# their first process, so that it reaps all others. It uses pivot_root because
# nsenter, with which the testbed enters its hosts, leaves a chroot.
set -eu
root=$1 name=$2 checkout=$3 inside=$4 temporary=$5 bundle=$6 variables=$7
shift 7
mount --bind "$root" "$root"
cd "$root"
mkdir -p ".$inside" .old

mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount -t tmpfs -o mode=755 tmpfs run
mkdir -p run/lock
mount --bind "$temporary" tmp
mount --bind "$checkout" ".$inside"
cp -L /etc/resolv.conf etc/resolv.conf
cp -L "$bundle" run/ca.crt
while [ "$1" != -- ]; do
    path=${1%:*} target=.${1##*:}
    if [ -d "$path" ]; then
        mkdir -p "$target"
    else
        mkdir -p "$(dirname "$target")"
        touch "$target"
    fi
    mount --bind -o ro "$path" "$target"
    shift
done
shift

pivot_root . .old
umount -l /.old
cd "$inside"
ip link set lo up 2>/dev/null || true
hostname "$name"
# By name, because the value of one may be a secret, such as an index of pip's.
for name in $(compgen -e); do
    [[ " $variables " = *" $name "* ]] || unset "$name"
done
# Not exec: see above.
"$@" && exit 0 || exit $?
