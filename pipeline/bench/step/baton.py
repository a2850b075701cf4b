"""Whose turn it is: contestants are processes that run one after the other, and wait in between.

A contestant, when it is ready, goes through its baton: each time it comes by it runs its steps and tells of
them. ``players`` has the other end.
"""

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

READY = {"ready": True}
TURN, END = "turn", "end"


class Baton:
    """A line on the standard input for each turn; what is told goes to the standard output as JSON.

    :param first: of several ranks the first one has it.
    :param any: whether a flag is set on any rank; the others learn of their turn by it.
    """

    def __init__(self, first: bool = True, any: Callable[[bool], bool] = bool):
        self._first, self._any = first, any

    def __iter__(self) -> Iterator[None]:
        self.tell(READY)
        while self._any(self._first and _asked()):
            yield

    def tell(self, told: dict[str, Any]) -> None:
        """Of the turn that is over."""
        if self._first:
            print(json.dumps(told), flush=True)


def _asked() -> bool:
    """Whether it is the next turn, and not the end.

    :raises EOFError: whoever asks is gone.
    """
    word = sys.stdin.readline().strip()
    if not word:
        raise EOFError("the benchmark is gone")
    return word == TURN
