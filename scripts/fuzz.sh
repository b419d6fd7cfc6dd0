#!/bin/sh
# Fuzzes every target for some seconds each. libFuzzer's flags are nightly's: RUSTC_BOOTSTRAP lets stable take them.
#
# The JSON target has an interpreter inside: PYTHON's (python3), which has to have a shared library of itself.
set -eu
cd "$(dirname "$0")/.."
seconds=${1:-10}
shift 2>/dev/null || true
# It only starts others: what it is compiled to need not be fast, and compiling is.
command -v cargo-fuzz >/dev/null || cargo install -q --locked --debug cargo-fuzz
export RUSTC_BOOTSTRAP=1
PYO3_PYTHON=$("${PYTHON:-python3}" -c 'import sys; print(sys.executable)')
libraries=$("$PYO3_PYTHON" -c 'import sysconfig; print(sysconfig.get_config_var("LIBDIR"))')
LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
# What one object overruns is seen only if each has memory of its own.
export PYO3_PYTHON LD_LIBRARY_PATH PYTHONMALLOC=malloc
has_library=$("$PYO3_PYTHON" -c 'import sysconfig; print(int(bool(sysconfig.get_config_var("Py_ENABLE_SHARED"))))')
for target in ${*:-$(cargo fuzz list)}; do
    if [ "$target" = json ] && [ "$has_library" = 0 ]; then
        echo "fuzz json: skipped, $PYO3_PYTHON has no shared library to link to" >&2
        # CI's has one, and if it has not, somebody should know.
        [ -z "${CI:-}" ] || exit 1
        continue
    fi
    echo "fuzz $target for $seconds s"
    mkdir -p "fuzz/corpus/$target"
    seeds=""
    [ -d "fuzz/seeds/$target" ] && seeds="fuzz/seeds/$target"
    # What Python and its classes keep until its end is no leak.
    leaks=1
    [ "$target" = json ] && leaks=0
    # shellcheck disable=SC2086 # no seeds, no argument
    ASAN_OPTIONS=detect_leaks=$leaks cargo fuzz run "$target" "fuzz/corpus/$target" $seeds -- \
        -max_total_time="$seconds" -verbosity=0
done
