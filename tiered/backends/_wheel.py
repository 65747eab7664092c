"""When cached entries expire: a hierarchical timing wheel (Varghese and Lauck, 1987; Caffeine's TimerWheel)."""

from __future__ import annotations

from collections.abc import Iterator

from ._slot import Slot


class Bucket(Slot):
    """The sentinel of a ring of slots."""

    __slots__ = ()

    before: Slot
    after: Slot

    def __init__(self) -> None:
        self.before = self.after = self


class Wheel:
    """Slots by the second they expire in. Adding, removing and taking a slot are O(1).

    Level 0 has 64 buckets of a second, level 1 64 buckets of 64 seconds, and so on for 34 years. A bucket above
    level 0 is looked at when its time begins, and its slots move down. Slots leave their bucket when they leave
    the cache, so nothing stale is ever kept. Clocks that step are fine: a bucket is looked at early or twice,
    never late, because a slot is placed by its absolute second.
    """

    __slots__ = ("_buckets", "_due", "_second", "bucket", "start", "stop")

    LEVELS = 5

    def __init__(self) -> None:
        self._buckets: dict[int, Bucket] = {}
        self._due = Bucket()  # slots whose bucket's time has come
        self._second = 0
        self.bucket = self._due  # the last one chosen, and the times that go there
        self.start = self.stop = 0

    def add(self, slot: Slot, due: float) -> None:
        """Remember `slot` until `due` seconds since the epoch."""
        bucket = self.bucket if self.start <= due < self.stop else self.choose(due)
        last = bucket.before
        slot.before = last
        slot.after = bucket
        last.after = bucket.before = slot

    def choose(self, due: float) -> Bucket:
        """The bucket for that time."""
        now = self._second
        second = max(int(due), now) + 1  # by then it has expired
        level = ((second - now).bit_length() - 1) // 6
        if level >= self.LEVELS:
            level = self.LEVELS - 1
            second = now + (63 << 6 * level)
        index = second >> 6 * level
        place = level << 6 | index & 63
        bucket = self._buckets.get(place)
        if bucket is None:
            bucket = self._buckets[place] = Bucket()
        self.bucket = bucket
        self.start = max(index << 6 * level, now + (1 << 6 * level)) - 1
        self.stop = min(index + 1 << 6 * level, now + (64 << 6 * level)) - 1
        return bucket

    def remove(self, slot: Slot) -> None:
        """Forget `slot`, if it is here."""
        before, after = slot.before, slot.after
        if before is not None and after is not None:
            before.after = after
            after.before = before
            slot.before = slot.after = None

    def take(self, now: float, limit: int) -> Iterator[Slot]:
        """Remove and yield up to `limit` slots to look at: each has expired or is to be added again."""
        second = int(now)
        if second != self._second:
            self._turn(second)
        due = self._due
        while limit > 0 and due.after is not due:
            slot = due.after
            self.remove(slot)
            yield slot
            limit -= 1

    def _turn(self, second: int) -> None:
        """Move the buckets whose time has come to `_due`: at most 64 a level, however far the clock has stepped."""
        before = self._second
        self._second = second
        self.start = self.stop = 0
        for level in range(self.LEVELS):
            old, new = before >> 6 * level, second >> 6 * level
            if new <= old:
                return
            for place in range(max(old, new - 64) + 1, new + 1):
                bucket = self._buckets.pop(level << 6 | place & 63, None)
                if bucket is not None and bucket.after is not bucket:
                    _splice(self._due, bucket)


def _splice(into: Bucket, bucket: Bucket) -> None:
    """Move all slots of `bucket` to the end of `into`, in O(1)."""
    first, last, end = bucket.after, bucket.before, into.before
    end.after = first
    first.before = end
    last.after = into
    into.before = last
    bucket.before = bucket.after = bucket
