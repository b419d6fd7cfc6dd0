"""`python -m httpy.work` is a worker: `worker.py`, with asyncio imported sparingly before anything asks for it."""

import sys

from .sparing import import_asyncio


def main() -> int:
    """Works until the supervisor says otherwise. Returns the exit status."""
    import_asyncio()

    from .worker import main

    return main()


if __name__ == "__main__":
    sys.exit(main())
