"""`httpy` and `python -m httpy`."""

import sys


def main() -> int:
    """Runs the command line. Returns the exit status."""
    # Before anything imports asyncio.
    from .sparing import import_asyncio

    import_asyncio()

    from .cli import main

    return main()


if __name__ == "__main__":
    sys.exit(main())
