"""Tiered caching: memory in front of slower stores, used as one LangChain `BaseStore`.

    import tiered

    store = tiered.open("memory://?max_bytes=64MiB", "sqlite:///cache.db", namespace="docs")

Everything named here is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import errors

if TYPE_CHECKING:
    from .backends.foreign import Foreign as Foreign
    from .backends.memory import Memory as Memory
    from .backends.sql import SQL as SQL
    from .bypassing import bypass as bypass
    from .config import from_config as from_config
    from .functions import cached as cached
    from .policies.compression import Zstd as Zstd
    from .policies.ttl import TTL as TTL
    from .policies.write import WriteAround as WriteAround
    from .policies.write import WriteThrough as WriteThrough
    from .store import TieredStore as TieredStore
    from .tier import Tier as Tier
    from .urls import open as open  # noqa: A004
    from .wrapping import wrap as wrap

__version__ = "0.1.0"

_HOMES = {
    "Foreign": "backends.foreign",
    "Memory": "backends.memory",
    "SQL": "backends.sql",
    "TTL": "policies.ttl",
    "Tier": "tier",
    "TieredStore": "store",
    "WriteAround": "policies.write",
    "WriteThrough": "policies.write",
    "Zstd": "policies.compression",
    "bypass": "bypassing",
    "cached": "functions",
    "from_config": "config",
    "open": "urls",
    "wrap": "wrapping",
}

__all__ = [
    "SQL",
    "TTL",
    "Foreign",
    "Memory",
    "Tier",
    "TieredStore",
    "WriteAround",
    "WriteThrough",
    "Zstd",
    "bypass",
    "cached",
    "errors",
    "from_config",
    "wrap",
]


if not TYPE_CHECKING:  # else a misspelt name would pass every type checker

    def __getattr__(name: str) -> Any:
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module 'tiered' has no attribute {name!r}")
        value = getattr(import_module(f"tiered.{home}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
