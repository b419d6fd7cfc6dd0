"""A program for tests that serves with a supervisor, or without: `python crew_program.py '{"workers": 2}'`.

Options, as JSON: `workers` (0: a Server in this process), `unix` (a path, in addition to a TCP port), `wishes` (of the
app), `config` (of each server), `log` (a file for what is imported here), and the supervisor's settings.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys


def main() -> int:
    options = json.loads(sys.argv[1])
    logging.basicConfig(level="INFO", format="%(message)s", stream=sys.stderr)
    wishes, config, unix = options.pop("wishes", {}), options.pop("config", {}), options.pop("unix", None)
    modules = options.pop("modules", None)
    from httpy import handover, systemd

    predecessor = handover.find_predecessor(os.environ)
    notifier = systemd.Notifier(os.environ)
    sockets = systemd.listening_sockets(os.environ)
    shared = bool(sockets)
    if predecessor is not None:
        sockets, shared = predecessor.sockets, predecessor.shared
    elif not sockets:
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if options.get("reuse_port"):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        one.bind((options.pop("host", "127.0.0.1"), 0))
        one.listen(2048)
        sockets = [one]
        if unix is not None:
            sockets.append(socket.socket(socket.AF_UNIX))
            sockets[-1].bind(unix)
            sockets[-1].listen(2048)
    if options["workers"] == 0:
        from crew_app import load
        from httpy import Server

        Server(load(**wishes), sockets=sockets, shared=shared, **config).run(notifier=notifier)
        return 0
    from httpy.supervisor import Supervisor, Target

    status = Supervisor(
        Target("crew_app:load", **wishes),
        sockets=sockets,
        shared=shared,
        config=config,
        notifier=notifier,
        predecessor=predecessor,
        **options,
    ).run()
    if modules is not None:
        with open(modules, "w", encoding="utf-8") as file:
            file.write("\n".join(sys.modules))
    return status


if __name__ == "__main__":
    sys.exit(main())
