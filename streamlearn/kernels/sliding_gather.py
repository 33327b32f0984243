"""The rows of a look-ahead: some of the memory, and the window of the newest ones."""

from typing import NamedTuple

import numpy as np

from streamlearn.kernels.compiling import compiled
from streamlearn.kernels.sliding_passes import take_in
from streamlearn.kernels.sliding_room import Given, Room, Work
from streamlearn.records import Array


class Span(NamedTuple):
    """The rows of a look-ahead in the room."""

    kept: int  # replayed ones, which come first
    rows: int  # all of them


@compiled
def _transformed(x: Array, given: Given, room: Room) -> Array:
    values = room.values
    for i in range(len(x)):
        value = (x[i] - given.shift[i]) * given.gain[i]
        if value > given.clip:
            value = np.float32(given.clip)
        elif value < -given.clip:
            value = np.float32(-given.clip)
        values[i] = value
    return values[: len(x)]


@compiled
def _recall(row: int, work: Work) -> int:
    """Put replayed rows into the room. How many there are."""
    held, given, room = work.held, work.given, work.room
    size = min(held.seen[0], len(held.x))
    count: int = min(work.recipe.replays, size)
    moved_at, moved_to = np.empty(count, np.int64), np.empty(count, np.int64)
    for i in range(count):  # Fisher-Yates over an array that is never written out
        j = i + int(given.chances[row, i] * (size - i))
        pick, first = j, i
        for k in range(i):
            if moved_at[k] == j:
                pick = moved_to[k]
            if moved_at[k] == i:
                first = moved_to[k]
        moved_at[i], moved_to[i] = j, first
        room.slots[i], room.y[i] = pick, np.searchsorted(given.active, held.labels[pick])
        take_in(i, _transformed(held.x[pick], given, room), room)
    return count


@compiled
def gather_rows(row: int, newest: int, work: Work) -> Span:
    """Put replayed rows and the window into the room."""
    given, room = work.given, work.room
    end = newest + row + 1
    begin, kept = max(0, end - work.recipe.window), _recall(row, work)
    for j in range(end - begin):
        take_in(kept + j, given.x[begin + j], room)
        room.y[kept + j] = given.labels[begin + j]
    return Span(kept, kept + end - begin)
