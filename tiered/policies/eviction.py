"""Which entry a full memory tier lets go: `Adaptive` (the default) and `Lru`.

A policy orders `Item`s and names victims; it holds no values and knows no clock. Every method runs under the
memory's lock, except that readers add to `freq` and call what `Lru.on_read` gave them without it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from sys import getsizeof
from typing import Protocol

BLOCK = 16
"""Bytes in one unit of cost: what the allocator rounds to, and it keeps most costs among Python's cached ints."""

SMALL, WINDOW, MAIN = range(3)


GHOST = 28
"""Bytes of the code of a ghost; the numbers are shared by many."""


class Item:
    """One cached entry as a policy sees it. `cost` is in `BLOCK`s of memory, `freq` counts hits not yet spent."""

    __slots__ = ("cost", "freq", "key", "modulus", "next", "prev", "queue")

    key: str
    modulus: int  # hash(key) % modulus is its ghost; one a namespace, so that equal keys of two differ
    cost: int
    freq: int
    queue: int  # SMALL, WINDOW or MAIN
    prev: Item
    next: Item


class Policy(Protocol):
    """What a memory tier needs of a policy."""

    retired: int  # hits of items that have left, and hits that were spent

    @property
    def nbytes(self) -> int:
        """Memory of its own, besides the items."""

    @property
    def on_read(self) -> Callable[[Item], None] | None:
        """What a reader calls besides adding to `freq`. Needs no lock; KeyError when the item has just left."""

    def add(self, item: Item) -> None:
        """Take a new item, whose `freq` is 0."""

    def evict(self, count: int) -> list[Item]:
        """Choose victims, as many as there are up to `count`, and let go of them."""

    def forget(self, item: Item) -> None:
        """Let go of an item that was deleted or has expired."""

    def resize(self, item: Item, cost: int) -> None:
        """The item was overwritten and now costs `cost`."""

    def clear(self) -> None:
        """Let go of all items at once, in whatever state an exception has left it."""


class Lru:
    """Evicts the item least recently read or written."""

    def __init__(self) -> None:
        self._order: OrderedDict[Item, None] = OrderedDict()
        self.retired = 0

    @property
    def on_read(self) -> Callable[[Item], None]:
        return self._order.move_to_end  # one C call, atomic under the GIL

    @property
    def nbytes(self) -> int:
        return getsizeof(self._order)

    def add(self, item: Item) -> None:
        self._order[item] = None

    def evict(self, count: int) -> list[Item]:
        order = self._order
        victims = [order.popitem(last=False)[0] for _ in range(min(count, len(order)))]
        if len(order) & 255 < count:
            self._shrink()
        return victims

    def forget(self, item: Item) -> None:
        del self._order[item]
        if not len(self._order) & 255:
            self._shrink()

    def _shrink(self) -> None:
        """Give back what deletes left: in place, for readers have its method (and miss meanwhile)."""
        order = self._order
        if getsizeof(order) > 256 * len(order) + 4096:
            kept = list(order)
            order.clear()
            order.update(dict.fromkeys(kept))

    def resize(self, item: Item, cost: int) -> None:
        item.cost = cost
        self._order.move_to_end(item)

    def clear(self) -> None:
        self._order.clear()


class Adaptive:
    """S3-FIFO (Yang et al., SOSP 2023) with a window at the head of its small queue and a share that steers itself.

    A new item enters the small queue, which holds `share` of the capacity; its newest fifth is the window, and
    leaving that erases the hits, so that a burst does not promote (the idea of W-TinyLFU's window, Einziger et al.,
    2017). At the other end an item that was hit goes to the main queue, another leaves and its ghost stays; an item
    whose ghost is found enters the main queue, a clock that gives up to two more rounds. The share grows when
    items come back soon after leaving the small queue (recency pays), and shrinks when items come back after
    leaving the main queue (frequency pays).

    Shares are of the bound in entries and of the bound in cost, whichever an item meets first.
    """

    on_read = None

    WINDOW = 5  # one in so many of the small queue
    LEAST, MOST = 0.1, 0.8  # share; starting above 0.12 loses loops
    GHOSTS, MAIN_GHOSTS = 0.9, 0.1  # evictions remembered, of the capacity; above 1.0 loses loops
    GENERATION = 0.6  # ghosts, of the capacity
    SOON = 0.06  # evictions, of the capacity
    GROW, SHRINK = 1.0, 0.5  # entries
    ROUNDS = 2

    def __init__(self, max_count: float, max_cost: float) -> None:
        """Bounds in entries and in blocks; `math.inf` for none."""
        self.retired = 0
        self._max_count, self._max_cost = max_count, max_cost
        self.clear()

    def clear(self) -> None:
        self._small, self._main = _ring(), _ring()
        self._edge = self._small  # the oldest item of the window; the ring's end when there is none
        self._window_count = self._small_count = self._main_count = 0
        self._small_cost = 0
        self._capacity = 0  # in entries, as last fitted; 0 until the first eviction
        # Ghosts: code -> number of the eviction, negative when from the main queue. Two generations, the older
        # dropped whole: exact at the young end, and no table full of deletions.
        self._young: dict[int, int] = {}
        self._old: dict[int, int] = {}
        self._from_small = self._from_main = 1  # numbers of the last evictions, and those last given to ghosts
        self._small_number, self._main_number = 1, -1
        self._stride = 0
        self._look_at = self._look_below = 0.0  # look again with so many young ghosts, or below so many items
        self._steer(self.LEAST)

    def _steer(self, share: float) -> None:
        self._share = min(self.MOST, max(self.LEAST, share))
        self._target_count = self._share * self._max_count
        self._target_cost = self._share * self._max_cost

    def add(self, item: Item) -> None:
        if self._capacity:
            code = hash(item.key) % item.modulus
            number = self._young.get(code) or self._old.get(code)
            if number is not None and self._returns(code, number):
                self._push_main(item)
                return
        elif self._small_count >= self._target_count or self._small_cost >= self._target_cost:
            self._push_main(item)  # filling up: else a loop would turn over in the small queue alone
            return
        small = self._small
        last = small.prev
        item.prev = last
        item.next = small
        last.next = small.prev = item
        item.queue = WINDOW
        self._small_count = count = self._small_count + 1
        self._small_cost += item.cost
        self._window_count = window = self._window_count + 1
        if window == 1:
            self._edge = item
        if window * self.WINDOW > count:  # `_leave_window` written out: every add comes here
            oldest = self._edge
            if oldest.freq:
                self.retired += oldest.freq
                oldest.freq = 0
            oldest.queue = SMALL
            self._edge = oldest.next
            self._window_count = window - 1

    def _returns(self, code: int, number: int) -> bool:
        """An item with a ghost is back: steer -> whether it enters the main queue."""
        self._young.pop(code, None)
        self._old.pop(code, None)
        if number < 0:
            if self._from_main + number <= self.MAIN_GHOSTS * self._capacity:
                self._steer(self._share - self.SHRINK / self._capacity)
            return False  # it steers only: promoting would keep what the main queue judged cold
        ago = self._from_small - number
        if ago <= self.SOON * self._capacity:
            self._steer(self._share + self.GROW / self._capacity)
        return ago <= self.GHOSTS * self._capacity

    def _leave_window(self) -> None:
        item = self._edge
        self.retired += item.freq
        item.freq = 0
        item.queue = SMALL
        self._edge = item.next
        self._window_count -= 1

    def _push_main(self, item: Item) -> None:
        main = self._main
        last = main.prev
        item.prev = last
        item.next = main
        last.next = main.prev = item
        item.queue = MAIN
        self._main_count += 1

    def evict(self, count: int) -> list[Item]:
        small, main, young = self._small, self._main, self._young
        victims: list[Item] = []
        while len(victims) < count:
            if self._small_count >= self._target_count or self._small_cost >= self._target_cost or not self._main_count:
                if not self._small_count:
                    break
                item = small.next
                if item is self._edge:
                    self._leave_window()
                small.next = after = item.next
                after.prev = small
                self._small_count -= 1
                self._small_cost -= item.cost
                hits = item.freq
                if not hits:
                    self._from_small = count_now = self._from_small + 1
                    number = self._small_number
                    if count_now - number > self._stride:  # an int for many ghosts, near enough to steer by
                        self._small_number = number = count_now
                    young[hash(item.key) % item.modulus] = number
                    victims.append(item)
                    continue
                self.retired += hits
                item.freq = 0
            else:
                item = main.next
                main.next = after = item.next
                after.prev = main
                self._main_count -= 1
                hits = item.freq
                if not hits:
                    self._from_main = count_now = self._from_main + 1
                    number = self._main_number
                    if count_now + number > self._stride:
                        self._main_number = number = -count_now
                    young[hash(item.key) % item.modulus] = number
                    victims.append(item)
                    continue
                item.freq = left = min(hits, self.ROUNDS) - 1
                self.retired += hits - left
            self._push_main(item)
        if len(young) >= self._look_at or self._small_count + self._main_count < self._look_below:
            self._review()
        return victims

    def _review(self) -> None:
        """Drop the older ghosts when the younger fill their generation: eight looks at it are enough."""
        self._capacity = self._small_count + self._main_count + 1  # as the bounds allow now
        full = self.GENERATION * self._capacity
        if len(self._young) >= full:
            self._old, self._young = self._young, {}
        if len(self._old) > 2 * full + 16:  # far fewer entries fit than did: large ones came
            self._old = {}
        self._look_at = len(self._young) + full / 8
        self._look_below = self._capacity / 2
        self._stride = self._capacity >> 8

    @property
    def nbytes(self) -> int:
        return getsizeof(self._young) + getsizeof(self._old) + GHOST * (len(self._young) + len(self._old))

    def forget(self, item: Item) -> None:
        if item is self._edge:
            self._edge = item.next
        before, after = item.prev, item.next
        before.next = after
        after.prev = before
        if item.queue == MAIN:
            self._main_count -= 1
        else:
            self._small_count -= 1
            self._small_cost -= item.cost
            if item.queue == WINDOW:
                self._window_count -= 1

    def resize(self, item: Item, cost: int) -> None:
        if item.queue != MAIN:
            self._small_cost += cost - item.cost
        item.cost = cost


def _ring() -> Item:
    """The sentinel of an empty queue: `next` is its oldest item, `prev` its newest."""
    ring = Item()
    ring.prev = ring.next = ring
    return ring
