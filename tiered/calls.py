"""What a cached function does when it is called."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from .arguments import LONG, Unkeyable, binder, digest, text_of
from .bypassing import BYPASS
from .checks import check_key, check_value
from .claims import check_function, claim, default_namespace
from .effects import Load, Plan
from .errors import CorruptEntry, InvalidValue, TieredError
from .flight import Caller
from .plans.load import Fresh, Source
from .policies.ttl import Seconds
from .serializers import Serializer
from .serializers.guard import decode, encode
from .store import TieredStore

KEYS = "cached"
"""What the keys of all cached functions begin with: `cached|namespace|version|serializer|names|arguments`; names is a
hash of the names of those parameters that are part of the key."""


@dataclass(frozen=True, slots=True)
class FunctionStats:
    """Counters of one cached function since it was decorated; calls."""

    hits: int  # answered without calling the function, those included that waited for another's call
    misses: int  # that called the function
    refreshes: int  # calls of the function in the background
    corrupt: int  # stored results that could not be decoded, and were made again


class Options(NamedTuple):
    store: TieredStore
    ttl: Any
    key: Callable[..., Any] | None
    ignore: tuple[str, ...]
    namespace: str | None
    version: str
    condition: Callable[[Any], bool] | None
    serializer: Serializer[Any]
    stale: Seconds | None
    refresh_ahead: float | None
    unread: bool

    def expiries(self, ttl: Any) -> Callable[[], tuple[int | None, int | None]]:
        return self.store._expiries(ttl, self.stale, self.refresh_ahead)  # noqa: SLF001


class Function:
    """A cached function, apart from how it is called."""

    def __init__(self, function: Callable[..., Any], options: Options) -> None:
        check_function(function, options.namespace, options.key)
        self.function, self.options = function, options
        self.hits = self.misses = self.refreshes = self.corrupt = 0
        self.names: Sequence[str] = ("key",)
        if options.key is None:
            self.names, self._bind = binder(function, options.ignore)
        else:
            make = options.key
            self._bind = lambda args, kwargs: (make(*args, **kwargs),)
        namespace = options.namespace or default_namespace(function)
        kind = type(options.serializer).__name__
        names = digest("=" if options.key else ",".join(self.names), 4)
        self.prefix = "|".join([KEYS, *map(_escaped, (namespace, options.version, kind)), names, ""])
        check_key(self.prefix + LONG * "x", options.store._made.max_key)  # noqa: SLF001
        claim(options.store, namespace, function, options.key)
        self.name = function.__qualname__
        self._loads = options.serializer.loads

    def find(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result that memory has, or the `Call` that is to be run."""
        if BYPASS.get():
            return Call(self, "", args, kwargs)
        key = self.key(args, kwargs)
        raw = self.options.store._hit(key)  # noqa: SLF001
        if raw is not None:
            try:
                result = self._loads(raw)
            except Exception:  # counted, or raised, when the call comes upon it again
                return Call(self, key, args, kwargs)
            self.hits += 1
            return result
        return Call(self, key, args, kwargs)

    def key(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        try:
            return self.prefix + text_of(self._bind(args, kwargs))
        except (Unkeyable, RecursionError):
            raise self._unkeyable(args, kwargs) from None

    def anew(self, args: tuple[Any, ...], kwargs: dict[str, Any], caller: Caller) -> Plan[Any]:
        return Call(self, self.key(args, kwargs), args, kwargs).plan(caller, anew=True)

    def _unkeyable(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> TypeError:
        for name, value in zip(self.names, self._bind(args, kwargs), strict=True):
            try:
                text_of([value])
            except Unkeyable as error:
                why = f"is, or holds, a {error}"
            except RecursionError:
                why = "holds itself, or is too deep"
            else:
                continue
            return TypeError(
                f"the argument {name!r} of {self.name} {why}, and cannot be part of a key: leave it out by "
                f"ignore=({name!r},), give its class a __tiered_key__, or make the key yourself by key="
            )
        raise AssertionError("every argument can be part of a key by itself")

    def stats(self) -> FunctionStats:
        return FunctionStats(self.hits, self.misses, self.refreshes, self.corrupt)


class Call:
    """One call that memory could not answer."""

    __slots__ = ("_again", "_args", "_key", "_kwargs", "_of", "_ran", "_raw", "_result")

    def __init__(self, of: Function, key: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._of, self._key, self._args, self._kwargs = of, key, args, kwargs
        self._ran = self._again = False
        self._raw: bytes | None = None  # what was decoded last, to `_result`

    def plan(self, caller: Caller, *, anew: bool = False) -> Plan[Any]:
        """The result. `anew`: call the function whatever is stored."""
        of, store = self._of, self._of.options.store
        if BYPASS.get():
            return (yield Load(self._run, None, ()))
        usable = _never if anew else self._usable
        source = Source(self._run, self._admit, usable, of.options.unread, self._run_again)
        if anew:  # those who come from here on must not get what was begun before
            store._stack.flights.detach(store._stack.space, [self._key])  # noqa: SLF001
        raw: bytes | None = None
        while raw is None:  # somebody else's loader of this very key found nothing
            raw = (yield from store._find_or_load([self._key], source, caller)).get(self._key)  # noqa: SLF001
        of.hits += not self._ran
        return self._result if raw is self._raw else decode(of.options.serializer, raw)

    def _run(self, _: Any) -> Any:
        self._ran = True
        self._of.misses += 1
        return self._of.function(*self._args, **self._kwargs)

    def _run_again(self, _: Any) -> Any:
        self._again = True
        if not self._same():
            return None
        self._of.refreshes += 1
        return self._of.function(*self._args, **self._kwargs)

    def _same(self) -> bool:
        """Whether the arguments are still what they were: the caller went on with them while this was in the back."""
        try:
            return self._of.key(self._args, self._kwargs) == self._key
        except TypeError:
            return False

    def _admit(self, result: Any, keys: list[str]) -> dict[str, Fresh]:
        options = self._of.options
        if isinstance(result, Coroutine):
            result.close()
            raise InvalidValue(
                f"{self._of.name} is a plain function that returns a coroutine, which can be awaited only once: make "
                "it, or the wrapper around it, a coroutine function"
            )
        if self._again and not self._same():
            return {}
        try:
            raw = check_value(encode(options.serializer, result), options.store._made.max_value)  # noqa: SLF001
        except InvalidValue as error:
            raise InvalidValue(f"the result of {self._of.name} cannot be kept: {error.message}") from error
        try:
            back = decode(options.serializer, raw)
        except CorruptEntry as error:
            raise InvalidValue(f"the result of {self._of.name} would not come back: {error.message}") from error
        if not self._again:
            self._result, self._raw = back, raw
        keep = options.condition is None or bool(options.condition(result))
        expiries = options.expiries(options.ttl(result) if callable(options.ttl) else options.ttl) if keep else None
        expires, soft = expiries() if expiries else (None, None)
        return {keys[0]: Fresh(raw, expires, soft, keep)}

    def _usable(self, raw: bytes) -> bool:
        try:
            self._result, self._raw = decode(self._of.options.serializer, raw), raw
        except TieredError:
            self._of.corrupt += 1
            return False
        return True


def _never(_: bytes) -> bool:
    return False


def _escaped(part: str) -> str:
    return part.replace("%", "%25").replace("|", "%7C")
