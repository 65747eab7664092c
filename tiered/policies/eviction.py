"""Which entry a full memory tier lets go: `Adaptive` (the default) and `Lru`.

A policy orders `Item`s and names victims; it holds no values and knows no clock. Every method runs under the
memory's lock, except that readers add to `freq` (and call `Lru.touch`) without it.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol


class Item:
    """One cached entry as a policy sees it. `cost` is in `BLOCK`s of memory, `freq` counts unspent hits."""

    __slots__ = ("cost", "freq", "key", "next", "prev", "queue", "salt")

    key: str
    salt: int  # tells equal keys of different namespaces apart
    cost: int
    freq: int
    queue: Queue
    prev: Item
    next: Item


BLOCK = 16
"""Bytes in one unit of cost: what the allocator rounds to, and it keeps most costs among Python's cached ints."""


class Queue(Item):
    """A first-in first-out queue, linked through its items so that any of them leaves in O(1).

    The queue itself is the sentinel of the ring: `next` is its oldest item, `prev` its newest.
    """

    __slots__ = ("count", "total")

    def __init__(self) -> None:
        self.prev = self.next = self
        self.count = 0
        self.total = 0  # cost of all items

    def push(self, item: Item) -> None:
        last = self.prev
        item.prev = last
        item.next = self
        last.next = self.prev = item
        item.queue = self
        self.count += 1
        self.total += item.cost

    def remove(self, item: Item) -> None:
        before, after = item.prev, item.next
        before.next = after
        after.prev = before
        self.count -= 1
        self.total -= item.cost


class Policy(Protocol):
    """What a memory tier needs of a policy. `retired` sums the hits it spent; `nbytes` is its own memory."""

    retired: int
    per_item: int  # bytes the policy itself takes for an item

    @property
    def nbytes(self) -> int: ...

    def add(self, item: Item) -> None:
        """Take a new item; its `freq` is 0."""

    def evict(self) -> Item | None:
        """Choose a victim and let go of it; None when there is no item."""

    def forget(self, item: Item) -> None:
        """Let go of an item that was deleted or has expired."""

    def touch(self, item: Item) -> None:
        """The item was read, under the lock and beyond its `freq`."""

    def resize(self, item: Item, cost: int) -> None:
        """The item was overwritten and now costs `cost`."""


class Lru:
    """Evicts the least recently read or written item. A reader calls `touch`, one C call, atomic under the GIL."""

    per_item = 150  # an ordered dict's node and its share of the table

    def __init__(self) -> None:
        self._order: OrderedDict[Item, None] = OrderedDict()
        self.retired = 0
        self.nbytes = 0

    def add(self, item: Item) -> None:
        self._order[item] = None

    @property
    def touch(self) -> Callable[[Item], None]:
        """Called by a reader without the lock; raises KeyError for an item that has just left."""
        return self._order.move_to_end

    def evict(self) -> Item | None:
        return self._order.popitem(last=False)[0] if self._order else None

    def forget(self, item: Item) -> None:
        del self._order[item]

    def resize(self, item: Item, cost: int) -> None:
        item.cost = cost
        self._order.move_to_end(item)


class Ghosts:
    """Remembers the hashes of the last evictions and how many evictions ago each was, in 8 bytes a cell.

    A table of two arrays (32 bits of the hash; eviction number) in which a hash may lie in either of two cells; the
    older gives way. A dict with a deque would be exact and take three to five times the memory; here under 3 % of
    the window is lost, which hit ratios do not show.
    """

    __slots__ = ("_mask", "_now", "_numbers", "_prints", "_window")

    def __init__(self) -> None:
        self._now = self._window = 0
        self._allocate(64)

    def _allocate(self, cells: int) -> None:
        self._mask = cells - 1
        self._prints = array("I", bytes(4 * cells))
        self._numbers = array("I", bytes(4 * cells))

    @property
    def nbytes(self) -> int:
        return 8 * (self._mask + 1)

    def add(self, code: int, window: int) -> None:
        """Note the eviction of `code`; the last `window` evictions are to be remembered."""
        self._window = window
        if not 3 * window <= self._mask + 1 <= 12 * window + 64:  # rare: the capacity has halved or doubled
            self._allocate(max(64, 1 << (3 * window - 1).bit_length()))
        self._now = now = (self._now + 1) & 0xFFFFFFFF  # a wrap forgets early what is old: it only steers
        numbers, cell = self._numbers, code & self._mask
        if numbers[cell] > numbers[cell ^ 1]:
            cell ^= 1
        self._prints[cell] = code >> 31 & 0xFFFFFFFF
        numbers[cell] = now

    def ago(self, code: int) -> int:
        """How many evictions ago `code` was noted, which is then forgotten; -1 when not within the window."""
        prints, cell, tag = self._prints, code & self._mask, code >> 31 & 0xFFFFFFFF
        if prints[cell] != tag:
            cell ^= 1
            if prints[cell] != tag:
                return -1
        number = self._numbers[cell]
        self._numbers[cell] = 0
        age = self._now - number
        return age if number and 0 <= age < self._window else -1


class Adaptive:
    """S3-FIFO (Yang et al., SOSP 2023) with a window before its small queue and a share that steers itself.

    A new key enters the window W, then the small queue S; both together get `share` of the capacity. Leaving W
    erases the hits, so that a burst does not promote (the window of W-TinyLFU, Einziger et al., 2017). Leaving S,
    a key that was hit goes to the main queue M, another leaves, its hash remembered; a hash that comes back enters
    M. M is a clock that gives up to three more rounds. The share grows when keys come back soon after leaving S
    (recency pays) and shrinks when keys come back after leaving M (frequency pays).

    The shares are of entries and of cost, whichever bound an item meets first.
    """

    per_item = 0

    WINDOW = 0.2  # of the small share
    LEAST, MOST = 0.1, 0.5  # share; a start above 0.12 loses loops
    GHOSTS, MAIN_GHOSTS = 0.9, 0.1  # evictions remembered, of the capacity in entries; above 1.0 loses loops
    SOON = 0.075  # of the capacity in evictions
    GROW, SHRINK = 1.0, 0.75  # entries
    ROUNDS = 3

    def __init__(self, max_count: float, max_cost: float) -> None:
        """Bounds in entries and in blocks; `math.inf` for none."""
        self._max_count, self._max_cost = max_count, max_cost
        self._window, self._small, self._main = Queue(), Queue(), Queue()
        self._left_small, self._left_main = Ghosts(), Ghosts()
        self._evictions = 0
        self._capacity = 0  # in entries, as it was at the last eviction
        self._share = self.LEAST
        self.retired = 0

    @property
    def nbytes(self) -> int:
        return self._left_small.nbytes + self._left_main.nbytes

    def add(self, item: Item) -> None:
        if self._evictions:
            code = hash(item.key) ^ item.salt
            if self._left_main.ago(code) >= 0:  # steers only: promoting here would keep what M judged cold
                self._share = max(self.LEAST, self._share - self.SHRINK / self._capacity)
            ago = self._left_small.ago(code)
            if ago >= 0:
                if ago <= self.SOON * self._capacity:
                    self._share = min(self.MOST, self._share + self.GROW / self._capacity)
                self._main.push(item)
                return
        elif self._small_is_full():  # filling up: straight to M, else a loop would turn over in S alone
            self._main.push(item)
            return
        window = self._window
        window.push(item)
        share = self._share * self.WINDOW
        while window.count > share * self._max_count or window.total > share * self._max_cost:
            self._leave_window()

    def _leave_window(self) -> None:
        item = self._window.next
        self._window.remove(item)
        self.retired += item.freq
        item.freq = 0
        self._small.push(item)

    def _small_is_full(self) -> bool:
        window, small, share = self._window, self._small, self._share
        return (
            window.count + small.count >= share * self._max_count
            or window.total + small.total >= share * self._max_cost
        )

    def evict(self) -> Item | None:
        window, small, main = self._window, self._small, self._main
        count = window.count + small.count + main.count
        if not count:
            return None
        self._evictions += 1
        self._capacity = count
        while True:
            if not main.count or ((small.count or window.count) and self._small_is_full()):
                if not small.count:
                    self._leave_window()
                item = small.next
                small.remove(item)
                if not item.freq:
                    self._left_small.add(hash(item.key) ^ item.salt, int(self.GHOSTS * count) + 1)
                    return item
                self.retired += item.freq
                item.freq = 0
            else:
                item = main.next
                main.remove(item)
                hits = item.freq
                if not hits:
                    self._left_main.add(hash(item.key) ^ item.salt, int(self.MAIN_GHOSTS * count) + 1)
                    return item
                item.freq = left = min(hits, self.ROUNDS) - 1
                self.retired += hits - left
            main.push(item)

    def forget(self, item: Item) -> None:
        item.queue.remove(item)

    def touch(self, item: Item) -> None:
        """`freq` is all it needs."""

    def resize(self, item: Item, cost: int) -> None:
        item.queue.total += cost - item.cost
        item.cost = cost
