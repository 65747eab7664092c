"""What the operations of a foreign store are made of: its methods, with every way they go wrong made one of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from ..backend import Op
from ..errors import BackendUnavailable, BatchError, Indeterminate, TieredError
from ._files import is_path
from ._locks import Turn
from ._names import split
from ._peer import MANY, Call, Compute, Listing, Peer, Request
from ._workers import Stuck

T = TypeVar("T")

_AWAY = {"ConnectionError", "TimeoutError", "OperationalError", "NetworkError", "TransportError"}
"""Names by which clients of servers say that the server is away; most derive from no built-in one."""


class Calls:
    """The methods of one store. What it answers is checked, never believed."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    def compute(self, work: Callable[[], T], count: int) -> Op[T]:
        """`work()`, off the event loop where it is about many things."""
        if count < MANY:
            return work()
        answer: T = yield Compute(work)
        return answer

    def mget(
        self,
        names: Sequence[str],
        shape: Callable[[list[Any]], T],
        turn: Turn | None = None,
        *,
        heavy: bool = False,
    ) -> Op[T]:
        """`shape` of what is stored for each of distinct `names`, None where nothing is.

        `heavy`: shape takes its time over large values, so it is kept off an event loop.
        Raises BackendUnavailable: the store raised, did not answer, or answered another number of values.
        """
        count = len(names)
        answer: T = yield from self._ask(
            Call("mget", lambda: list(names), lambda values: shape(self._checked(count, values)), turn, heavy=heavy)
        )
        return answer

    def mset(self, pairs: Callable[[], list[tuple[str, Any]]], turn: Turn, heavy: bool) -> Op[None]:
        """Raises Indeterminate where the store raised or did not answer, BackendUnavailable where it was not called."""
        yield from self._ask(Call("mset", pairs, _nothing, turn, heavy), writes=True)

    def mdelete(self, names: Sequence[str], turn: Turn) -> Op[None]:
        if names:
            yield from self._ask(Call("mdelete", lambda: list(names), _nothing, turn), writes=True)

    def listed(self, choose: Callable[[tuple[str, str]], str | None]) -> Op[set[str]]:
        """What `choose` makes of the namespace and key of every name, without what it makes nothing of.

        The store's own prefixes are not used: each store means something else by them.
        """
        found: set[str] = set()

        def sink(name: Any) -> None:
            if not isinstance(name, str):
                raise self._lie(f"yield_keys() of {self._peer.name} gave a {type(name).__name__} among its keys")
            place = split(name) if is_path(name) or not self._peer.files else None
            if place is not None and (chosen := choose(place)) is not None:
                found.add(chosen)

        yield from self._ask(Listing(sink))
        return found

    def names(self) -> Op[list[str]]:
        """Every name there is, as it is."""
        found: list[str] = []

        def sink(name: str) -> None:
            if is_path(name):
                found.append(name)

        yield from self._ask(Listing(sink if self._peer.files else found.append))
        for kind in set(map(type, found)):
            if not issubclass(kind, str):
                raise self._lie(f"yield_keys() of {self._peer.name} gave a {kind.__name__} among its keys")
        return found

    def hold(self, names: Iterable[str], steps: Callable[[Turn], Op[T]], *, shared: bool = False) -> Op[T]:
        """Run `steps` while nobody else in this process writes `names`, nor reads them unless `shared`."""
        turn = Turn(self._peer.locks, names, shared=shared)
        try:
            yield from self._ask(turn)
            return (yield from steps(turn))
        finally:
            turn.left = True  # by an assignment: Ctrl-C may strike in any call
            turn.leave()

    def _ask(self, request: Request, *, writes: bool = False) -> Op[Any]:
        name = self._peer.name
        try:
            return (yield request)
        except BatchError as error:  # of a stack of ours: its keys are our names
            raise BatchError(
                f"{name}: {error.message}",
                written=map(_key, error.written),
                not_written=map(_key, error.not_written),
                unknown=map(_key, error.unknown),
            ) from error
        except TieredError:
            raise
        except Stuck as error:
            kind = Indeterminate if writes and error.sent else BackendUnavailable
            raised: BackendUnavailable | Indeterminate = kind(f"{self._what(request)}: {error}")
            raised.answered = error.busy
            raise raised from error
        except Exception as error:  # its text may hold values, so it is only linked
            kind = Indeterminate if writes else BackendUnavailable
            raised = kind(f"{self._what(request)} raised {type(error).__name__}")
            # the call returned: it is this key or this value, unless the error says that nothing was reached
            raised.answered = not any(base.__name__ in _AWAY for base in type(error).__mro__)
            raise raised from error

    def _what(self, request: Request) -> str:
        return self._peer.name if isinstance(request, Turn | Compute) else f"{request.method}() of {self._peer.name}"

    def _checked(self, count: int, answer: Any) -> list[Any]:
        values = list(answer)
        if len(values) != count:
            raise self._lie(f"mget() of {self._peer.name} answered {len(values)} values for {count} keys")
        return values

    def raw(self, value: Any) -> bytes:
        """A stored value, if it is bytes."""
        if type(value) is bytes:
            return value
        if isinstance(value, bytes | bytearray | memoryview):
            return bytes(value)
        raise self._lie(
            f"mget() of {self._peer.name} answered a {type(value).__name__} where bytes are due: "
            "a store of other values takes a serializer="
        )

    def _lie(self, message: str) -> BackendUnavailable:
        """It is there, and broken: trying again would not help."""
        error = BackendUnavailable(message)
        error.answered = True
        return error


def _nothing(_: Any) -> None: ...


def _key(name: str) -> str:
    place = split(name)
    return name if place is None else place[1]
