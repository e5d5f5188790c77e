#!/bin/sh
# Installs meshd from this folder, on any Linux with kernel 6.1 or later: ./install.sh --help
set -eu

usage() {
    cat <<'END'
Usage: ./install.sh [--prefix DIR] [--cni-dir DIR] [--no-start]
       ./install.sh --uninstall [--purge] [--prefix DIR] [--cni-dir DIR]

Installs meshd, meshctl, their manual pages and shell completions below --prefix (/usr/local), the CNI plugin in --cni-dir
(/opt/cni/bin), /etc/meshd/meshd.toml unless there is one and, where there is systemd, the unit in /etc/systemd/system.
Then starts the unit, or restarts it when it runs: packets flow on meanwhile. Run again with a newer folder to upgrade.

  --no-start    leave the unit alone
  --uninstall   stop the daemon, take the data path down, remove what was installed; keep state and configuration
  --purge       with --uninstall: remove state, configuration and the group mesh too
END
}

fail() {
    echo "install.sh: $*" >&2
    exit 1
}

prefix=/usr/local
cni=/opt/cni/bin
start=yes
uninstall=
purge=
while [ $# -gt 0 ]; do
    case "$1" in
        --prefix) prefix=${2:?--prefix needs a folder}; shift ;;
        --cni-dir) cni=${2:?--cni-dir needs a folder}; shift ;;
        --no-start) start= ;;
        --uninstall) uninstall=yes ;;
        --purge) purge=yes ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; exit 2 ;;
    esac
    shift
done
case "$prefix$cni" in
    *' '*) fail "folders with spaces are not supported" ;;
esac
case "$prefix" in /*) ;; *) fail "--prefix $prefix: give an absolute path" ;; esac
case "$cni" in /*) ;; *) fail "--cni-dir $cni: give an absolute path" ;; esac
if [ -n "$purge" ] && [ -z "$uninstall" ]; then
    fail "--purge goes with --uninstall"
fi
[ "$(id -u)" = 0 ] || fail "run it as root"
if [ -e /var/lib/dpkg/info/meshd.list ] && [ -x /usr/sbin/meshd ]; then
    fail "the package meshd is installed; use apt, or remove it first"
fi

unit=/etc/systemd/system/meshd.service
has_systemd() { [ -d /run/systemd/system ] && command -v systemctl >/dev/null; }

installed() {
    for file in sbin/meshd bin/meshctl share/bash-completion/completions/meshctl \
        share/zsh/site-functions/_meshctl share/fish/vendor_completions.d/meshctl.fish; do
        echo "$prefix/$file"
    done
    for page in "$prefix"/share/man/man1/meshctl*.1 "$prefix"/share/man/man8/meshd.8 "$prefix"/share/man/man8/mesh-cni.8; do
        echo "$page"
    done
    echo "$cni/mesh-cni"
    echo "$unit"
}

if [ -n "$uninstall" ]; then
    if has_systemd; then
        systemctl disable --now meshd.service 2>/dev/null || true
    elif [ -S /run/meshd/meshd.sock ] && "$prefix/bin/meshctl" status >/dev/null 2>&1; then
        fail "meshd runs: stop it first, as it was started"
    fi
    if [ -x "$prefix/sbin/meshd" ]; then
        "$prefix/sbin/meshd" --take-down || echo "install.sh: what is left of the data path goes with the next boot" >&2
    fi
    installed | while read -r file; do rm -f "$file"; done
    rm -rf "$prefix/share/doc/meshd"
    if has_systemd; then
        systemctl daemon-reload
    fi
    if [ -n "$purge" ]; then
        rm -rf /var/lib/meshd /run/meshd /etc/meshd
        # A group with members is somebody's.
        if grep -q '^mesh:.*:$' /etc/group; then
            groupdel mesh 2>/dev/null || delgroup mesh
        fi
    fi
    exit 0
fi

cd "$(dirname "$0")"
# The short option alone is known to busybox, too.
if ! sums=$(sha256sum -c SHA256SUMS 2>&1); then
    echo "$sums" | grep -v ': OK$' >&2 || true
    fail "files are damaged; fetch the archive again"
fi
[ "$(uname -m)" = "$(cat ARCHITECTURE)" ] || fail "this archive is for $(cat ARCHITECTURE)"
./sbin/meshd --version >/dev/null || fail "meshd does not run on this machine"
if ! command -v nft >/dev/null; then
    echo "install.sh: nft is not there; install nftables, which gives tasks their way out" >&2
fi
if ! grep -q '^mesh:' /etc/group; then
    groupadd --system mesh 2>/dev/null || addgroup -S mesh 2>/dev/null ||
        echo "install.sh: no group mesh could be made; the socket will be for root alone" >&2
fi
# A file is replaced as a whole: a daemon that runs keeps the old one.
put() {
    mkdir -p "$(dirname "$3")"
    cp "$2" "$3.new"
    chmod "$1" "$3.new"
    mv -f "$3.new" "$3"
}
put 0755 sbin/meshd "$prefix/sbin/meshd"
put 0755 bin/meshctl "$prefix/bin/meshctl"
put 0755 cni/mesh-cni "$cni/mesh-cni"
find share -type f | while read -r file; do put 0644 "$file" "$prefix/$file"; done
if [ ! -e /etc/meshd/meshd.toml ]; then
    put 0644 meshd.toml /etc/meshd/meshd.toml
fi
if command -v systemctl >/dev/null; then
    mkdir -p /etc/systemd/system
    sed "s|/usr/sbin/meshd|$prefix/sbin/meshd|g" meshd.service > "$unit"
fi
"$prefix/sbin/meshd" --check-config >/dev/null ||
    fail "the new files are there; mend the configuration, then start or restart meshd"
if ! has_systemd; then
    echo "installed; this machine does not run systemd: have $prefix/sbin/meshd started at boot, and again after an upgrade"
elif [ -n "$start" ]; then
    systemctl daemon-reload
    systemctl enable meshd.service
    systemctl restart meshd.service
    echo "installed and started; next: $prefix/bin/meshctl init, or meshctl join"
else
    systemctl daemon-reload
    echo "installed; next: systemctl enable --now meshd"
fi
