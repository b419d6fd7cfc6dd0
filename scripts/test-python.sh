#!/bin/sh
# Runs the Python tests: those that may run beside each other, and then those marked `alone`, which measure time or memory
# and want the machine for themselves. Fails if either half does.
#
#     scripts/test-python.sh [ARGUMENT ...]       pytest's: files, -k EXPRESSION
#
# Environment, optional:
#   PYTHON=.venv/bin/python
#   PYTEST_JOBS=4            how many run beside each other: two for each processor, 8 at most
#   RETRY=1                  what has failed is run once more, with nothing beside it, and has to pass then
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
# Most of them wait more than they compute. Each process has to load all of them first.
jobs=${PYTEST_JOBS:-$("$python" -c 'import os; print(min(8, 2 * os.cpu_count()))')}

# Runs the tests with a mark, or without it, some at a time.
run() {
    marks=$1 at_a_time=$2
    shift 2
    status=0
    "$python" -m pytest "$@" -m "$marks" -n "$at_a_time" --dist worksteal || status=$?
    # 1 is that tests have failed. Nothing makes up for a process that died, which is something else: conftest.py.
    if [ $status = 1 ] && [ -n "${RETRY:-}" ]; then
        status=0
        "$python" -m pytest "$@" -m "$marks" --last-failed --last-failed-no-failures none || status=$?
    fi
    return $status
}

beside=0 alone=0
run "not alone" "$jobs" "$@" || beside=$?
run "alone" 0 "$@" || alone=$?
# 5 is that there were none, which is well if the other half has some.
[ $beside = 0 ] || [ "$beside $alone" = "5 0" ] || exit $beside
[ $alone = 0 ] || [ $alone = 5 ] || exit $alone
