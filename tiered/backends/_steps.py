"""Wall time that is set back, noticed by monotonic time."""

from __future__ import annotations

from collections.abc import Callable

STEP = 1.0
"""Seconds that wall time may step back before copies are let go of: so much longer would they live."""


class StepWatch:
    """Looks at two clocks now and then; small steps add up."""

    __slots__ = ("_ahead", "monotonic", "time")

    def __init__(self, time: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self.time, self.monotonic = time, monotonic
        self._ahead = time() - monotonic()  # wall time before monotonic time, at its highest

    def stepped_back(self) -> bool:
        """Whether wall time was set back since it was last looked at."""
        ahead = self.time() - self.monotonic()
        back = ahead < self._ahead - STEP
        if back or ahead > self._ahead:
            self._ahead = ahead
        return back
