#!/bin/sh
# Runs the Python tests but the slow ones with one abi3 wheel on every Python that pyenv has, the newest patch of each
# minor version.
set -eu
cd "$(dirname "$0")/.."
wheels=$(mktemp -d)
trap 'rm -rf "$wheels"' EXIT
.venv/bin/maturin build -q --release -o "$wheels"
root=$(pyenv root 2>/dev/null || echo /nowhere)
for minor in 3.9 3.10 3.12 3.13 3.14; do
    python=$(ls -d "$root"/versions/$minor.*/bin/python 2>/dev/null | sort -V | tail -1)
    [ -n "$python" ] || { echo "python $minor: not here"; continue; }
    "$python" -m venv "$wheels/$minor"
    "$wheels/$minor/bin/pip" install -q --disable-pip-version-check pytest hypothesis httpx anyio pydantic msgspec "$wheels"/*.whl
    echo "python $minor:"
    run="$wheels/$minor/bin/python -m pytest -q -o cache_dir=$wheels/$minor/cache"
    # What fails is run once more, alone: some tests measure time, on a machine that others use too.
    $run -m "not slow" || $run --last-failed --last-failed-no-failures none
done
