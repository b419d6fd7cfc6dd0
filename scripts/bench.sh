#!/bin/sh
# Compares HTTPy with other servers, interleaved, and prints server CPU per request, requests/s, latency and memory.
#
# Environment, all optional:
#   ROUNDS=3      rounds; the median is printed
#   SECONDS=3     seconds per round, row and workload
#   ONLY=a,b      rows, of benches/httpy.json and the peers' file
#   WORK=a,b      workloads
#   CONNECTIONS=64
#   JSON=file     writes the figures there too
#   BENCH_HOME    where the peers are built (default .bench)
#   BENCH_SHARED  where serverbench.py is (default ../shared/bench)
set -eu
cd "$(dirname "$0")/.."

rounds=${ROUNDS:-3}
# Not ${SECONDS:-3}: to bash that is a stopwatch.
seconds=$(printenv SECONDS || echo 3)
connections=${CONNECTIONS:-64}
only=${ONLY:-bare-hyper,httpy,httpy-inline,granian-rsgi,granian-asgi,socketify,fastpysgi-wsgi,robyn,sanic,uvicorn-raw,uvicorn-starlette}
work=${WORK:-plain,pipeline,json,params,echo,big,sync,inline,sleep0,notfound}
shared=${BENCH_SHARED:-../shared/bench}
BENCH_HOME=${BENCH_HOME:-$PWD/.bench}
export BENCH_HOME

command -v wrk >/dev/null || { echo "wrk is not here: apt-get install wrk" >&2; exit 1; }

# HTTPy alone: when the comparison's own repository is not beside this one.
alone() {
    echo "$shared is not here, so HTTPy is measured alone. 'make bench-python' compares with Starlette on uvicorn." >&2
    port=18290
    for variable in HTTPY_BENCH_INLINE=0 HTTPY_BENCH_INLINE=1; do
        port=$((port + 1))
        echo "# $variable"
        env "$variable" PORT=$port .venv/bin/python benches/app.py 2>/dev/null &
        server=$!
        trap 'kill $server 2>/dev/null || true' EXIT INT TERM
        until curl -fsS -o /dev/null "http://127.0.0.1:$port/" 2>/dev/null; do
            kill -0 $server
        done
        for path in / /json '/users/42?q=abc' /big /inline /sync /sleep0; do
            per_second=$(wrk -t1 -c"$connections" -d"${seconds}s" "http://127.0.0.1:$port$path" | sed -n 's/^Requests.sec: *//p')
            printf '%-20s %12s requests/s\n' "$path" "$per_second"
        done
        kill $server
        wait $server || true
    done
}

if [ ! -f "$shared/serverbench.py" ]; then
    alone
    exit
fi
if [ ! -x "$BENCH_HOME/target/release/bare-hyper" ] || [ ! -x "$BENCH_HOME/venv/bin/granian" ]; then
    "$shared/setup.sh"
fi
python=$(command -v python3)
"$python" "$shared/serverbench.py" "$shared/peers.json" benches/httpy.json --only "$only" -w "$work" \
    -c "$connections" -d "$seconds" -r "$rounds" ${JSON:+--json "$JSON"}
