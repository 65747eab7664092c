"""Which function may be cached under which name: two that share one would answer with each other's results."""

from __future__ import annotations

import inspect
import threading
import weakref
from collections.abc import Callable
from typing import Any

from .errors import ConfigurationError

_claims: weakref.WeakKeyDictionary[Any, dict[str, weakref.ref[Callable[..., Any]]]] = weakref.WeakKeyDictionary()
_claims_lock = threading.Lock()


def check_function(function: Any, namespace: str | None) -> None:
    """ConfigurationError unless its results can be kept under a name of its own."""
    what = f"{function!r:.80}"
    if isinstance(function, staticmethod | classmethod):
        raise ConfigurationError(f"{what}: write @cached below @{type(function).__name__}, not above")
    if isinstance(function, type) or not callable(function):
        raise ConfigurationError(f"{what}: cached takes functions, methods and coroutine functions")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigurationError(f"{what} is a generator, and can be read only once: return a list")
    if not hasattr(function, "__qualname__"):
        raise ConfigurationError(f"{what} has no name of its own: wrap it in a function")
    if namespace is not None:
        if not isinstance(namespace, str) or not namespace:
            raise ConfigurationError(f"namespace={namespace!r:.60}: give a non-empty str")
    elif _is_closure(function) or function.__name__ == "<lambda>":
        raise ConfigurationError(
            f"{what} is a closure or a lambda: others of that name may compute something else; give it a namespace="
        )


def _is_closure(function: Any) -> bool:
    code = getattr(function, "__code__", None)
    return code is not None and bool(set(code.co_freevars) - {"__class__"})  # a method that calls super() is none


def claim(store: Any, namespace: str, function: Callable[..., Any]) -> None:
    """ConfigurationError if another function has that namespace in the store; a new definition of it replaces it."""
    with _claims_lock:
        claims = _claims.setdefault(store, {})
        holder = claims.get(namespace)
        old = None if holder is None else holder()
        if old is not None and not _redefines(function, old):
            raise ConfigurationError(
                f"namespace={namespace!r:.80} is that of {old!r:.80}: their results would be mixed up; give "
                f"{function!r:.80} another"
            )
        claims[namespace] = weakref.ref(function)


def _redefines(new: Any, old: Any) -> bool:
    if (new.__module__, new.__qualname__) != (old.__module__, old.__qualname__):
        return False
    if new is old or "<locals>" not in new.__qualname__:
        return "<lambda>" not in new.__qualname__ or new is old
    return not _is_closure(new) and getattr(new, "__code__", new) == getattr(old, "__code__", old)
