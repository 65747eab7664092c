"""Which function may be cached under which name: two that share one would answer with each other's results."""

from __future__ import annotations

import inspect
import sys
import threading
import weakref
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from .errors import ConfigurationError

_claims: weakref.WeakKeyDictionary[Any, dict[str, _Claim]] = weakref.WeakKeyDictionary()
_claims_lock = threading.RLock()  # a function may die while it is held


def check_function(function: Any, namespace: str | None, key: Callable[..., Any] | None) -> None:
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
    elif key is None and _bound(function):
        raise ConfigurationError(
            f"{what} is bound to one object, and others of its kind would share its results: put @cached on the method "
            "in its class, or give a namespace= for each object, or a key="
        )
    elif _is_closure(function) or function.__name__ == "<lambda>":
        raise ConfigurationError(
            f"{what} is a closure or a lambda: others of that name may compute something else; give it a namespace="
        )


def _bound(function: Any) -> bool:
    owner = getattr(function, "__self__", None)
    return owner is not None and not isinstance(owner, ModuleType)


def _is_closure(function: Any) -> bool:
    code = getattr(function, "__code__", None)
    return code is not None and bool(set(code.co_freevars) - {"__class__"})  # a method that calls super() is none


def default_namespace(function: Any) -> str:
    """Its module and name. All scripts are called `__main__`: theirs is the script's name and a hash of its place."""
    module: str = function.__module__
    if module == "__main__":
        main = sys.modules["__main__"]
        path, spec = getattr(main, "__file__", None), getattr(main, "__spec__", None)
        if spec is not None:  # python -m
            module = spec.name
        elif path is not None:
            place = blake2b(str(Path(path).resolve()).encode(), digest_size=4).hexdigest()
            module = f"{Path(path).stem}-{place}"
    return f"{module}.{function.__qualname__}"


class _Claim(NamedTuple):
    function: weakref.ref[Callable[..., Any]]
    key: Callable[..., Any] | None


def claim(store: Any, namespace: str, function: Callable[..., Any], key: Callable[..., Any] | None) -> None:
    """ConfigurationError if another function, or the same one with another `key`, has that namespace in the store.

    A new definition of the function replaces it.
    """
    with _claims_lock:
        claims = _claims.setdefault(store, {})
        holder = claims.get(namespace)
        old = None if holder is None else holder.function()
        if holder is not None and old is not None:
            if not _redefines(function, old):
                raise ConfigurationError(
                    f"namespace={namespace!r:.80} is that of {old!r:.80}: their results would be mixed up; give "
                    f"{function!r:.80} another"
                )
            if function == old and key and holder.key and key is not holder.key:
                raise ConfigurationError(
                    f"{function!r:.80} is cached already with another key=: their results would be mixed up; give "
                    f"one of them a namespace="
                )

        def forget(dead: weakref.ref[Callable[..., Any]]) -> None:
            with _claims_lock:
                kept = claims.get(namespace)
                if kept is not None and kept.function is dead:
                    del claims[namespace]

        claims[namespace] = _Claim(weakref.ref(function, forget), key)


def _redefines(new: Any, old: Any) -> bool:
    if (new.__module__, new.__qualname__) != (old.__module__, old.__qualname__):
        return False
    if inspect.ismethod(new) or inspect.ismethod(old):
        return bool(new == old)  # of the same object
    if new is old or "<locals>" not in new.__qualname__:
        return "<lambda>" not in new.__qualname__ or new is old
    return not _is_closure(new) and getattr(new, "__code__", new) == getattr(old, "__code__", old)
