"""How tasks become arguments of a script: flat, not too many at once, long texts apart."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

MOST = 1000
"""Tasks in one call of a script; see MOST in `common.lua`."""

MOST_BYTES = 8 * 1024 * 1024
"""Bytes of results in one call: they are also published, and Redis cuts off an API process
that has more than a few tens of megabytes to read."""

LONG = 1024
"""Bytes from which a text is an argument of its own: an argument costs us about a microsecond, and
Redis about as much to copy so many bytes once more."""

T = TypeVar("T")


def slices(
    items: Sequence[T], size: Callable[[T], int] = lambda _: 0, most: int = MOST
) -> Iterator[Sequence[T]]:
    """Cuts what one call of a script must not take at once.

    Args:
        items: what to cut.
        size: bytes that one item brings along.
        most: items that may stay together.
    """
    start = room = 0
    for end, item in enumerate(items):
        room -= size(item)
        if end - start == most or (room < 0 and end > start):
            yield items[start:end]
            start = end
        if start == end:
            room = MOST_BYTES - size(item)
    if start < len(items):
        yield items[start:]


def flat(rows: Iterable[Iterable[Any]]) -> list[Any]:
    """Rows one after the other, as the scripts take them."""
    return list(itertools.chain.from_iterable(rows))


class LongTexts(list[bytes]):
    """Texts that are arguments of their own; see `text` in `common.lua`."""

    def __init__(self, after: int) -> None:
        """Args: after: arguments in front of the first of them."""
        super().__init__()
        self._before = after

    def place(self, text: bytes) -> str | int:
        """What stands among the packed tasks: a short text itself, the number of a long one."""
        if len(text) < LONG:
            return text.decode()
        self.append(text)
        return self._before + len(self)
