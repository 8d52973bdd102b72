#!/bin/sh
# The tests of the packet path against its compiled form, in a copy of the tree: `test_compiled.sh [pytest's arguments]`.
# What replaces parts of compiled classes cannot run there; such tests are marked `pure` and stay out.
set -eu
cd "$(dirname "$0")/.."
root=$PWD
tree=$root/build/compiled
"$root/.venv/bin/python" scripts/compile.py --into "$tree"
if ! find "$tree" -name '*.so' | grep -q .; then
    echo "nothing was compiled here: the packet path's tests ran in pure Python alone" >&2
    exit 0
fi
there=$root/build/compiled-tested
rm -rf "$there"
cp -R "$tree" "$there"
for part in tests pcaps scripts bench config docs Makefile README.md CHANGELOG.md pyproject.toml .gitignore; do
    if [ "$part" = bench ]; then
        mkdir "$there/bench" && cp bench/*.py bench/README.md "$there/bench"
    else
        cp -R "$part" "$there/$part"
    fi
done
cd "$there"
[ $# -gt 0 ] || set -- tests/wire tests/capture tests/detect tests/intel tests/test_pcaps.py tests/test_names.py \
    --ignore-glob=tests/intel/test_feed* tests/test_mutations.py tests/runtime/test_parallel_replay.py tests/runtime/test_packet_process.py
PYTHONPATH=$there "$root/.venv/bin/python" -m pytest -n "${JOBS:-auto}" -m "not slow and not root and not pure" "$@"
