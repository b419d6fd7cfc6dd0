#!/bin/sh
# Fuzzes every target for some seconds each. libFuzzer's flags are nightly's: RUSTC_BOOTSTRAP lets stable take them.
set -eu
cd "$(dirname "$0")/.."
seconds=${1:-10}
command -v cargo-fuzz >/dev/null || cargo install -q --locked cargo-fuzz
export RUSTC_BOOTSTRAP=1
for target in $(cargo fuzz list); do
    echo "fuzz $target for $seconds s"
    mkdir -p "fuzz/corpus/$target"
    seeds=""
    [ -d "fuzz/seeds/$target" ] && seeds="fuzz/seeds/$target"
    # shellcheck disable=SC2086 # no seeds, no argument
    cargo fuzz run "$target" "fuzz/corpus/$target" $seeds -- -max_total_time="$seconds" -verbosity=0
done
