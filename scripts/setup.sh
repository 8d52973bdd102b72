#!/bin/sh
# Make .venv with what the command needs: `setup.sh run|test|lint`. Run again it does nothing until pyproject.toml changes.
# Needs Python 3.11 or newer and a package index; needs no root. Where Debian's Python comes without its venv module and
# this is root, it installs python3-venv; otherwise it says so.
set -eu
cd "$(dirname "$0")/.."
what=${1:-run}
stamp=.venv/.ready-$what

python=""
for candidate in "${PYTHON:-python3}" python3.13 python3.12 python3.11 python3.14; do
    if command -v "$candidate" >/dev/null 2>&1 &&
        "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "egressd needs Python 3.11 or newer (set PYTHON=/path/to/python3 if it is not on the path)" >&2
    exit 1
fi

if [ -e "$stamp" ] && [ ! pyproject.toml -nt "$stamp" ] && .venv/bin/python -c 'import egressd' 2>/dev/null; then
    exit 0
fi

if [ ! -x .venv/bin/python ] || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    echo "setting up .venv with $("$python" --version)" >&2
    rm -rf .venv
    if ! "$python" -m venv .venv >/dev/null 2>&1; then
        rm -rf .venv
        if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
            echo "Python's venv module is missing; installing python3-venv by apt-get" >&2
            { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv; } >/dev/null
            "$python" -m venv .venv
        elif "$python" -m pip --version >/dev/null 2>&1; then
            "$python" -m venv --without-pip .venv
            "$python" -m pip --python .venv/bin/python install -q pip
        else
            echo "Python's venv module is missing: install it (Debian, Ubuntu: apt-get install python3-venv)" >&2
            exit 1
        fi
    fi
fi

case $what in
    run) extra="" ;;
    test) extra="[test]" ;;
    lint) extra="[test,lint]" ;;
    *) echo "use: setup.sh run|test|lint" >&2; exit 2 ;;
esac
echo "installing egressd$extra into .venv" >&2
.venv/bin/python -m pip install -q --disable-pip-version-check -e ".$extra"
touch "$stamp"
