#!/bin/sh
# The tests against the compiled form, in a copy of the tree: `test_compiled.sh [pytest's arguments]`. Without arguments
# all but those of the tree itself (what is installed, documented, measured, compiled), and as root the incident is
# played through with real packets. What needs pure Python, or replaces parts of compiled classes, is marked `pure` and
# stays out.
set -eu
cd "$(dirname "$0")/.."
root=$PWD
tree=$root/build/compiled
"$root/.venv/bin/python" scripts/compile.py --into "$tree"
if ! find "$tree" -name '*.so' | grep -q .; then
    echo "nothing was compiled here: the tests ran in pure Python alone" >&2
    exit 0
fi
there=$root/build/compiled-tested
rm -rf "$there"
cp -R "$tree" "$there"
tar -c --exclude=./.git --exclude=./.venv --exclude=./build --exclude=./bench/work --exclude=./egressd . | tar -x -C "$there"
cd "$there"
export PYTHONPATH="$there"
with() {
    "$root/.venv/bin/python" -m pytest -n "${JOBS:-auto}" -m "not slow and not root and not pure" "$@"
}
if [ $# -gt 0 ]; then
    with "$@"
    exit
fi
with --ignore-glob='tests/test_bench*' --ignore=tests/test_systemd.py --ignore=tests/test_docs.py \
    --ignore=tests/test_readme.py --ignore=tests/test_build_hook.py --ignore=tests/test_compile.py \
    --ignore=tests/test_layers.py
[ "$(id -u)" != 0 ] || "$root/.venv/bin/python" -m pytest -n 0 -q tests/netns/test_live_incident.py
