"""The memory in which workers tell each other how many connections they have; see `python/src/board.rs`."""

from __future__ import annotations

import mmap
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

# As many as there can be workers at a time, those included that are about to end; four bytes each.
_PLACES = 256
_BYTES = 4


class Board:
    """Is such memory, and knows whose each place in it is."""

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("httpy-workers")
        os.ftruncate(self.descriptor, _PLACES * _BYTES)
        self._memory = mmap.mmap(self.descriptor, _PLACES * _BYTES)
        self._free = list(range(_PLACES - 1, -1, -1))

    def take_place(self) -> Optional[int]:
        """Returns a place that is nobody's; None if there are too many workers, of which one can do without."""
        return self._free.pop() if self._free else None

    def free_place(self, place: int) -> None:
        """Takes a place back from a worker that has ended."""
        self._memory[place * _BYTES : (place + 1) * _BYTES] = bytes(_BYTES)
        self._free.append(place)

    def close(self) -> None:
        """Gives the memory back to the system."""
        self._memory.close()
        os.close(self.descriptor)


def make_board() -> Optional[Board]:
    """Returns a board; None where the system has none, and whoever wakes first gets a connection."""
    return Board() if sys.platform == "linux" else None
