#!/usr/bin/env python3
"""Writes the figures of `JSON=figures.json make bench` into docs/performance.md.

python scripts/figures.py figures.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parent.parent / "docs" / "performance.md"
BEGIN, END = "<!-- figures: scripts/figures.py -->\n", "<!-- end of figures -->\n"
BASE = "bare-hyper"
COMPARED = ("plain", "pipeline", "json", "params", "echo", "big")
OWN = ("inline", "sleep0", "sync", "notfound")


def main() -> None:
    rows = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    PAGE.write_text(f"{before}{BEGIN}{tables(rows)}{END}{after}", encoding="utf-8")


def tables(rows: list[dict[str, Any]]) -> str:
    by_place = {(row["server"], row["workload"]): row for row in rows}
    base = {workload: by_place[BASE, workload]["us"] for workload in COMPARED}
    servers = sorted({row["server"] for row in rows}, key=lambda server: by_place[server, "plain"]["us"])
    lines = [
        "Server CPU per request, in microseconds, and how much that is of bare hyper's:",
        "",
        f"| | {' | '.join(COMPARED)} | idle, MiB |",
        "|---|" + "---:|" * (len(COMPARED) + 1),
    ]
    for server in servers:
        cells = [_cell(by_place.get((server, workload)), base[workload]) for workload in COMPARED]
        name = f"**{server}**" if server.startswith("httpy") else server
        lines.append(f"| {name} | {' | '.join(cells)} | {by_place[server, 'plain']['rss0']:.1f} |")
    lines += ["", "Requests per second, and the 99th percentile of latency in milliseconds:", ""]
    lines += [f"| | {' | '.join(COMPARED)} |", "|---|" + "---:|" * len(COMPARED)]
    for server in servers:
        cells = [_speed(by_place.get((server, workload)), workload) for workload in COMPARED]
        name = f"**{server}**" if server.startswith("httpy") else server
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "HTTPy's other ways to a response, in microseconds of server CPU per request:", ""]
    lines += [f"| | {' | '.join(OWN)} |", "|---|" + "---:|" * len(OWN)]
    lines.append("| **httpy** | " + " | ".join(f"{by_place['httpy', own]['us']:.2f}" for own in OWN) + " |")
    return "\n" + "\n".join(lines) + "\n\n"


def _is_good(row: dict[str, Any] | None) -> bool:
    return row is not None and not row["bad"] and not row["err"]


def _cell(row: dict[str, Any] | None, base: float) -> str:
    return f"{row['us']:.2f} ({row['us'] / base:.2f})" if row is not None and _is_good(row) else ""


def _speed(row: dict[str, Any] | None, workload: str) -> str:
    if row is None or not _is_good(row):
        return ""
    # wrk does not measure latency of pipelined requests.
    return f"{row['rps']:,.0f}" + ("" if workload == "pipeline" else f" ({row['p99'] / 1000:.1f})")


if __name__ == "__main__":
    main()
