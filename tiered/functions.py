"""`@tiered.cached(store)`: a function's results, kept in a stack.

key    the function's name, and its arguments bound by name (tiered.arguments)
hit    memory has it: decoded, and that is all
else   get_or_load with the function as its loader
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Iterable
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

from .calls import Call, Function, FunctionStats, Options
from .checks import check_on_error
from .errors import ConfigurationError
from .policies.ttl import Seconds
from .serializers import Msgpack, Serializer
from .store import OnCacheError, TieredStore
from .tier import UNSET, Unset

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")


class Cached(Protocol[P, R_co]):
    """A function whose results are kept. Each of its methods takes the arguments of a call."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

    @overload
    def __get__(self, instance: None, owner: type[Any]) -> Cached[P, R_co]: ...
    @overload
    def __get__(
        self: Cached[Concatenate[S, Q], R_co], instance: S, owner: type[Any] | None = None
    ) -> Cached[Q, R_co]: ...

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Delete the result of this call from every tier."""

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call the function now and keep its result, unless the entry is written or deleted meanwhile.

        A result that `condition` refuses is returned, and what was kept before stays: `invalidate` it.
        """

    def cache_key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """The key of this call in the store."""

    def stats(self) -> FunctionStats: ...


class AsyncCached(Protocol[P, R]):
    """The same of a coroutine function."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]: ...

    @overload
    def __get__(self, instance: None, owner: type[Any]) -> AsyncCached[P, R]: ...
    @overload
    def __get__(
        self: AsyncCached[Concatenate[S, Q], R], instance: S, owner: type[Any] | None = None
    ) -> AsyncCached[Q, R]: ...

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, None]: ...
    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]: ...
    def cache_key(self, *args: P.args, **kwargs: P.kwargs) -> str: ...
    def stats(self) -> FunctionStats: ...


class _Decorator(Protocol):
    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncCached[P, R]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, function: Callable[P, R], /) -> Cached[P, R]: ...


def cached(
    store: TieredStore,
    *,
    ttl: Seconds | Callable[[Any], Seconds | None] | Unset | None = UNSET,
    key: Callable[..., Any] | None = None,
    ignore: Iterable[str] = (),
    namespace: str | None = None,
    version: str | int | None = None,
    condition: Callable[[Any], bool] | None = None,
    types: Iterable[type] = (),
    serializer: Serializer[Any] | None = None,
    stale: Seconds | None = None,
    refresh_ahead: float | None = None,
    on_cache_error: OnCacheError = "load",
) -> _Decorator:
    """Keep the results of a function, method or coroutine function in `store`, by its arguments.

    A call is known by its arguments bound by name, defaults included: `f(1)` is `f(a=1)`, and not `f(1.0)`. They may
    be None, bool, int, float, str, bytes, Decimal, UUID, dates and times, paths, enums, named tuples, dataclasses, and
    lists, tuples, sets and dicts of these; any object that has a `__tiered_key__` (a value or a method). Else calls
    raise TypeError. Leave parameters out by `ignore=("self",)`, or make the key by `key=`, which is called as the
    function is.

    Results are stored by `serializer`, by default Msgpack(types=types), and a first call too returns what it brings
    back. InvalidValue for what it does not take. None is a result like others; exceptions are not kept. `ttl` is as
    for `store.set`, or a function of the result; `condition(result)` False: returned, not stored. `stale`,
    `refresh_ahead` and `on_cache_error` are as for `store.get_or_load`. Calls at once with the same arguments call the
    function once.

    `namespace` is what tells functions apart, by default their module and name (in a script, the script's name and
    place for `__main__`); a closure or lambda needs one, for others may have its name, and so does a method that is
    bound to an object, for others have it too. `version`: change it when the function's results change.

    Raises ConfigurationError at decoration: a generator, a closure without `namespace`, another function's namespace.
    """
    if not isinstance(store, TieredStore):
        raise ConfigurationError(f"cached(store) takes a TieredStore, not {type(store).__name__}")
    if isinstance(ignore, str):
        raise TypeError(f"ignore={ignore!r:.60}: give several names, as in ignore=({ignore!r:.60},)")
    named = tuple(types)
    if serializer is not None and named:
        raise ConfigurationError("types= is for the default serializer: give them to yours")
    if key is not None and tuple(ignore):
        raise ConfigurationError("key= decides alone what a call is known by: ignore= is for calls without one")
    for what, function in (("key", key), ("condition", condition)):
        if function is not None and not callable(function):
            raise TypeError(f"{what}= takes a function, not {type(function).__name__}")
    if version is not None and (isinstance(version, bool) or not isinstance(version, str | int)):
        raise TypeError(f"version={version!r:.60}: give a str or an int")
    options = Options(
        store,
        ttl,
        key,
        tuple(ignore),
        namespace,
        "" if version is None else str(version),
        condition,
        Msgpack(named) if serializer is None else serializer,
        stale,
        refresh_ahead,
        check_on_error(on_cache_error),
    )
    options.expiries(1.0 if callable(ttl) else ttl)

    def decorate(function: Callable[..., Any], /) -> Any:
        return _decorated(Function(function, options))

    return decorate


# -- faces -----------------------------------------------------------------------------------------------------------


def _decorated(of: Function) -> Any:
    """The function that stands in the place of the user's."""
    call = _async_face(of) if inspect.iscoroutinefunction(of.function) else _sync_face(of)
    call.cache_key = lambda *args, **kwargs: of.key(args, kwargs)
    call.stats = of.stats
    inside = of.function.__qualname__.rpartition(".")[0]
    return _Method(call) if inside and not inside.endswith("<locals>") else call


def _sync_face(of: Function) -> Any:
    store, find, function = of.options.store, of.find, of.function
    engine = store._engine  # noqa: SLF001

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        found = find(args, kwargs)
        if type(found) is not Call:
            return found
        return engine.run(found.plan(engine.caller()))

    face: Any = call
    face.refresh = lambda *args, **kwargs: engine.run(of.anew(args, kwargs, engine.caller()))
    face.invalidate = lambda *args, **kwargs: store.delete(of.key(args, kwargs))
    return face


def _async_face(of: Function) -> Any:
    store, find, function = of.options.store, of.find, of.function

    @wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        found = find(args, kwargs)
        if type(found) is not Call:
            return found
        engine = store._aio()  # noqa: SLF001
        return await engine.run(found.plan(engine.caller()))

    async def refresh(*args: Any, **kwargs: Any) -> Any:
        engine = store._aio()  # noqa: SLF001
        return await engine.run(of.anew(args, kwargs, engine.caller()))

    async def invalidate(*args: Any, **kwargs: Any) -> None:
        await store.adelete(of.key(args, kwargs))

    face: Any = call
    face.refresh, face.invalidate = refresh, invalidate
    return face


class _Method(partial[Any]):
    """A cached function in a class: what an object's attribute gives knows the object, `object.f.invalidate()` too.

    A partial of no arguments, so that `inspect` knows a coroutine function under a staticmethod too.
    """

    def __init__(self, call: Any) -> None:
        wraps(call)(self)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self.func if instance is None else _Bound(self.func, instance)


class _Bound(partial[Any]):
    """The call with its object; `inspect` takes a partial for what it stands for, coroutine functions included."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") and name not in ("__name__", "__qualname__"):  # nor is it the function otherwise
            raise AttributeError(name)
        found = getattr(self.func, name)
        return partial(found, *self.args) if name in ("cache_key", "invalidate", "refresh") else found
