#!/bin/sh
# Runs the Python tests but the slow ones on other Pythons: those named, or the newest patch of each minor version that
# pyenv has. One abi3 wheel is for them all; a free-threaded Python gets one of its own.
#
# With QUICK=1 the first and the last run them all, and those between only what depends on the interpreter's insides.
set -eu
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [ $# = 0 ]; then
    root=$(pyenv root 2>/dev/null || echo /nowhere)
    for minor in 3.9 3.10 3.12 3.13 3.14 3.14t 3.15; do
        python=$(ls -d "$root"/versions/$minor.*/bin/python "$root"/versions/"${minor%t}".*t/bin/python 2>/dev/null |
            if [ "$minor" = "${minor%t}" ]; then grep -v 't/bin/python$'; else grep 't/bin/python$'; fi | sort -V | tail -1)
        [ -n "$python" ] && set -- "$@" "$python" || echo "python $minor: not here"
    done
fi
first=$1
for last; do :; done

# Makes an environment for a Python with a wheel of ours in it, and runs the tests there.
test_with() {
    python=$1 version=$2 wheels=$3
    "$python" -m venv "$work/$version"
    bin=$work/$version/bin
    [ -d "$bin" ] || bin=$work/$version/Scripts
    "$bin/python" -m pip install -q --disable-pip-version-check pytest pytest-timeout pytest-xdist hypothesis 'httpx[http2]' anyio websockets "$wheels"/*.whl
    # What has no wheel for this Python is done without: its tests are skipped.
    for package in pydantic msgspec; do
        "$bin/python" -m pip install -q --disable-pip-version-check --only-binary :all: "$package" || true
    done
    run="$bin/python -m pytest -q -o cache_dir=$work/$version/cache"
    case "${QUICK:-} $python" in
    "1 $first" | "1 $last") ;;
    1*) run="$run tests_py/test_private_parts.py tests_py/test_parked.py tests_py/test_driver.py tests_py/test_json.py" ;;
    esac
    # What fails is run once more, alone: some tests measure time, on a machine that others use too. What dies is not.
    status=0
    $run -m "not slow and not alone" -n "${PYTEST_JOBS:-2}" --dist worksteal || status=$?
    [ $status != 1 ] || $run --last-failed --last-failed-no-failures none || return
    [ $status -le 1 ]
}

# Ends the job that was started first, and shows what it has said.
end_one() {
    set -- $jobs
    status=0
    wait "$1" || status=$?
    echo "python $2:"
    cat "$work/log-$2"
    [ $status = 0 ] || failed="$failed $2"
    shift 2
    jobs=$*
}

# Two at a time: most tests wait more than they compute. The last one begins, and the first one beside it: they take long.
jobs='' failed='' count=$#
for python in "$last" "$@"; do
    [ $count != 0 ] || break
    count=$((count - 1))
    version=$("$python" -c 'import sys, sysconfig
print("%d.%d%s" % (*sys.version_info[:2], "t" * bool(sysconfig.get_config_var("Py_GIL_DISABLED"))))')
    case $version in
    *t) wheels=$work/wheels-$version build="-i $python" ;;
    *) wheels=$work/wheels build="" ;;
    esac
    # What `make build` has compiled is what goes into it.
    [ -d "$wheels" ] || make -s wheel WHEELS="$wheels" ARGUMENTS="-q $build"
    # shellcheck disable=SC2086 # words
    set -- $jobs
    [ $# -lt 4 ] || end_one
    test_with "$python" "$version" "$wheels" >"$work/log-$version" 2>&1 &
    jobs="$jobs $! $version"
done
while [ -n "$jobs" ]; do end_one; done
[ -z "$failed" ] || { echo "failed:$failed"; exit 1; }
