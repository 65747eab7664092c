"""A drop-in for `langchain_community.storage`: the same names, arguments and stored layout. Change the import.

SQLite so far: `SQLStore`, with `LangchainKeyValueStores` and `items_equal`. Every class may be a tier of a stack.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .backends._sql_store import LangchainKeyValueStores as LangchainKeyValueStores
    from .backends._sql_store import SQLStore as SQLStore
    from .backends._sql_store import items_equal as items_equal

_HOMES = dict.fromkeys(("LangchainKeyValueStores", "SQLStore", "items_equal"), "_sql_store")

__all__ = ["LangchainKeyValueStores", "SQLStore", "items_equal"]


if not TYPE_CHECKING:  # else a misspelt name would pass every type checker

    def __getattr__(name: str) -> Any:  # each brings its driver
        if name not in _HOMES:
            raise AttributeError(f"module 'tiered.storage' has no attribute {name!r}")
        return getattr(import_module(f"tiered.backends.{_HOMES[name]}"), name)
