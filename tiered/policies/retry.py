"""How often, and how soon, a failed write to the authority is tried again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Retry:
    """Up to `attempts` tries in all, the pauses growing from `first` to `most` seconds, with full jitter."""

    attempts: int = 4
    first: float = 0.05
    most: float = 1.0

    def pause(self, failures: int) -> float | None:
        """Seconds to wait after so many failures; None to give up."""
        if failures >= self.attempts:
            return None
        # Imported on the first failure only: tenacity takes 60 ms.
        from tenacity import RetryCallState, Retrying, wait_random_exponential

        state = RetryCallState(Retrying(), None, (), {})
        state.attempt_number = failures
        return float(wait_random_exponential(multiplier=self.first, max=self.most)(state))
