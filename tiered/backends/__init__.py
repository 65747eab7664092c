"""Backends, one system each; imported on first use, for each brings its driver."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .foreign import Foreign as Foreign
    from .memory import Memory as Memory
    from .sql import SQL as SQL

__all__ = ["SQL", "Foreign", "Memory"]


if not TYPE_CHECKING:  # else a misspelt name would pass every type checker

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module 'tiered.backends' has no attribute {name!r}")
        import tiered

        return getattr(tiered, name)
