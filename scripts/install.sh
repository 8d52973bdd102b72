#!/bin/sh
# Installs egressd as a service, or takes it away: `install.sh install|uninstall` (make install, make uninstall). This is
# the one place that changes the system. It needs root, or DESTDIR for a package; docs/install.md says what it does.
#
#   DESTDIR=DIR        put everything under DIR, for a package or a test; then no user, no service, no root is needed
#   PREFIX=/opt/egressd   where the program goes, with a Python environment of its own
#   PYTHON=python3     which Python 3.11 or newer
#   COMPILE=no         leave the packet path in pure Python (by default it is compiled where that is possible)
#   COMPILE=profile    compile it twice, the second time by what the first one counted: a tenth faster, for GCC
#   DEPENDENCIES=none  do not install Python packages: they come by other ways
set -eu
cd "$(dirname "$0")/.."
umask 022
what=${1:-install}
DESTDIR=${DESTDIR:-}
PREFIX=${PREFIX:-/opt/egressd}
COMPILE=${COMPILE:-auto}
DEPENDENCIES=${DEPENDENCIES:-install}
LIB=$DESTDIR/usr/lib
CONFIG=$DESTDIR/etc/egressd
LINK=$DESTDIR/usr/bin/egressd
TREE=$DESTDIR$PREFIX
MARK=.egressd-tree # a tree without it is not ours to remove
UNITS="egressd.service egressd-check.service egressd-check.path"

say() { echo "egressd: $*" >&2; }
fail() {
    say "$*"
    exit 1
}
# Whether this is the system itself, and systemd runs it.
systemd_runs() { [ -z "$DESTDIR" ] && [ -d /run/systemd/system ]; }

check_place() {
    if [ -z "$DESTDIR" ] && [ "$(id -u)" != 0 ]; then
        fail "$what needs root: sudo make $what (or DESTDIR=DIR for a package)"
    fi
    case $PREFIX in
        /*/*) ;;
        *) fail "PREFIX=$PREFIX: give a folder of its own, such as /opt/egressd" ;;
    esac
    case $PREFIX in
        *[!A-Za-z0-9/._-]*) fail "PREFIX=$PREFIX: letters, digits and /._- only" ;;
    esac
    if [ -e "$TREE" ] && [ ! -e "$TREE/$MARK" ]; then
        fail "$TREE is there and not of this script's making; it was not touched"
    fi
    if [ -e "$LINK" ] || [ -L "$LINK" ]; then
        [ "$(readlink "$LINK" || true)" = "$PREFIX/bin/egressd" ] ||
            fail "$LINK is there and not of this script's making; it was not touched"
    fi
}

find_python() {
    for candidate in "${PYTHON:-python3}" python3.13 python3.12 python3.11 python3.14; do
        if command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            # The file itself, python3.11: a link, python3, is the next version's after an update of the system, and
            # that would not find what is installed.
            python=$("$candidate" -c 'import os, sys; print(os.path.realpath(sys.executable))')
            case $python in
                /root/* | /home/*)
                    # The service runs with ProtectHome=yes and as a user of its own.
                    [ -n "$DESTDIR" ] || fail "$python lies in somebody's home, where the service cannot reach it: set PYTHON"
                    ;;
            esac
            return
        fi
    done
    fail "Python 3.11 or newer is needed (set PYTHON=/path/to/python3)"
}

# What egressd depends on, each a word.
requirements() {
    "$python" -c '
import tomllib
print(*(one.replace(" ", "") for one in tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"]))'
}

# The tree is made beside the old one and put in its place at the end.
make_tree() {
    new=$TREE.new
    rm -rf "$new"
    mkdir -p "$(dirname "$new")"
    if [ "$DEPENDENCIES" = none ]; then
        "$python" -m venv --without-pip "$new"
    else
        "$python" -m venv "$new" >/dev/null 2>&1 ||
            fail "Python's venv module is missing: install it (Debian, Ubuntu: apt-get install python3-venv)"
        say "installing what it depends on"
        # shellcheck disable=SC2046  # a list of requirements without spaces
        "$new/bin/python" -m pip install -q --disable-pip-version-check $(requirements)
    fi
    touch "$new/$MARK"
    site=$("$new/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    compile_into "$site"
    # The scripts of packages name a folder that is about to be another; nobody needs them.
    find "$new/bin" -mindepth 1 ! -name 'python*' -delete
    printf '%s\n' "#!$PREFIX/bin/python -I" 'import sys' '' 'from egressd.cli.main import main' '' 'sys.exit(main())' \
        >"$new/bin/egressd"
    chmod 755 "$new/bin/egressd"
    doc=$new/share/doc/egressd
    mkdir -p "$doc"
    cp docs/*.md docs/*.json README.md LICENSE CHANGELOG.md SECURITY.md "$doc"
    cp -R config monitoring "$doc"
    # The service cannot write here: what Python would cache at its first start is made now.
    "$new/bin/python" -m compileall -q -s "$new" -p "$PREFIX" "$site" >/dev/null || true
    rm -rf "$TREE.old"
    [ ! -e "$TREE" ] || mv "$TREE" "$TREE.old"
    mv "$new" "$TREE"
    rm -rf "$TREE.old"
}

# The package, compiled where a C compiler and mypyc are to be had; else as it is, slower, with the same results.
compile_into() {
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    find_builder
    if [ -n "$builder" ]; then
        say "compiling the packet path (some minutes; COMPILE=no leaves it out)"
        compile_tree || say "not compiled: egressd runs in pure Python"
    else
        say "not compiled: no C compiler, no mypyc, or COMPILE=no; egressd runs in pure Python"
    fi
    set -- "$scratch"/tree/*.so
    if [ -e "$1" ]; then
        cp "$@" "$site"
        cp -R "$scratch/tree/egressd" "$site/egressd"
    else
        cp -R egressd "$site/egressd"
        find "$site/egressd" -name '*.so' -delete # of a development tree, perhaps for another Python
    fi
    find "$site/egressd" -name __pycache__ -prune -exec rm -rf {} +
    rm -f "$site/egressd/.compiled-from"
}

# By a profile where that was asked for and can be done, else without.
compile_tree() {
    if [ "$COMPILE" = profile ]; then
        "$builder" scripts/compile.py --profile --into "$scratch/tree" >&2 && return
        say "not compiled by a profile: once more, without"
    fi
    "$builder" scripts/compile.py --into "$scratch/tree" >&2
}

# A Python with mypyc whose compiled modules fit: the development environment's, else one made for this.
find_builder() {
    builder=""
    if [ "$COMPILE" = no ] || ! command -v "${CC:-cc}" >/dev/null 2>&1; then
        return
    fi
    suffix='import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))'
    if [ -x .venv/bin/python ] && .venv/bin/python -c 'import mypyc, setuptools' 2>/dev/null &&
        [ "$(.venv/bin/python -c "$suffix")" = "$("$python" -c "$suffix")" ]; then
        builder=.venv/bin/python
        # shellcheck disable=SC2046  # a list of requirements without spaces; what counts for a profile is egressd itself
    elif [ "$DEPENDENCIES" != none ] && "$python" -m venv "$scratch/builder" >/dev/null 2>&1 &&
        "$scratch/builder/bin/python" -m pip install -q --disable-pip-version-check mypy setuptools \
            $([ "$COMPILE" != profile ] || requirements); then
        builder=$scratch/builder/bin/python
    fi
}

# What is there already is an operator's and stays.
make_config() {
    mkdir -p "$CONFIG/lists.d" "$CONFIG/allow.d"
    if [ ! -e "$CONFIG/egressd.yaml" ]; then
        sed -e 's|^lists: \[\]|lists: ["lists.d/*.txt"]|' -e 's|^allow: \[\]|allow: ["allow.d/*.txt"]|' \
            -e '/^#  - lists/d' config/egressd.yaml >"$CONFIG/egressd.yaml"
    fi
    if [ ! -e "$CONFIG/lists.d/local.txt" ]; then
        printf '%s\n' '# One domain, address, network or URL a line, with comments (docs/lists.md):' \
            '#evil.example   threat=phish confidence=90 ref=CASE-7' >"$CONFIG/lists.d/local.txt"
    fi
    if [ ! -e "$CONFIG/allow.d/local.txt" ]; then
        printf '%s\n' '# What goes before every list, each with its owner and reason (docs/lists.md):' \
            '#never-block partner.example  owner=noc reason="partner VPN"' >"$CONFIG/allow.d/local.txt"
    fi
}

put() { # MODE FROM TO
    mkdir -p "$(dirname "$3")"
    sed "s|/opt/egressd|$PREFIX|g" "$2" >"$3"
    chmod "$1" "$3"
}

make_service() {
    for unit in $UNITS; do
        put 644 "systemd/$unit" "$LIB/systemd/system/$unit"
    done
    put 644 systemd/sysusers.d/egressd.conf "$LIB/sysusers.d/egressd.conf"
    put 644 systemd/tmpfiles.d/egressd.conf "$LIB/tmpfiles.d/egressd.conf"
    put 644 systemd/logrotate.d/egressd "$DESTDIR/etc/logrotate.d/egressd"
}

# The user, and the folders with their owners; a package does this when it is installed.
make_user() {
    if command -v systemd-sysusers >/dev/null 2>&1; then
        systemd-sysusers egressd.conf
    elif ! id egressd >/dev/null 2>&1; then
        useradd --system --user-group --home-dir /var/lib/egressd --shell /usr/sbin/nologin egressd
    fi
    if command -v systemd-tmpfiles >/dev/null 2>&1; then
        systemd-tmpfiles --create egressd.conf
    else
        install -d -o egressd -g egressd -m 700 /var/lib/egressd
        install -d -o egressd -g egressd -m 750 /var/log/egressd
        chown -R root:egressd /etc/egressd
        chmod 750 /etc/egressd
    fi
}

case $what in
    install)
        check_place
        find_python
        make_tree
        mkdir -p "$(dirname "$LINK")"
        ln -sfn "$PREFIX/bin/egressd" "$LINK"
        make_config
        make_service
        [ -n "$DESTDIR" ] || make_user
        if systemd_runs; then
            systemctl daemon-reload
            systemctl try-restart egressd.service # if it runs: what it would load later must fit what it has loaded
        fi
        say "installed in $TREE. Next:"
        say "  edit $CONFIG/egressd.yaml and $CONFIG/lists.d/; egressd check-config"
        say "  systemctl enable --now egressd.service egressd-check.path; egressd status"
        ;;
    uninstall)
        check_place
        if systemd_runs; then
            systemctl disable --now $UNITS 2>/dev/null || true
        fi
        rm -f "$LINK"
        for unit in $UNITS; do
            rm -f "$LIB/systemd/system/$unit"
        done
        rm -f "$LIB/sysusers.d/egressd.conf" "$LIB/tmpfiles.d/egressd.conf"
        rm -rf "$TREE" "$TREE.new" "$TREE.old"
        if systemd_runs; then
            systemctl daemon-reload
        fi
        say "removed. Kept: /etc/egressd, /etc/logrotate.d/egressd, /var/lib/egressd, /var/log/egressd, the user egressd."
        say "Blocks in the kernel stay until they time out; to lift them now: nft delete table inet egressd"
        ;;
    *)
        echo "use: install.sh install|uninstall" >&2
        exit 2
        ;;
esac
