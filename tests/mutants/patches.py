"""The patches: in `file`, the one place that reads `old` becomes `new`. `rule` says what that breaks.

Those whose rule begins with "8:" are the mutants that PROTOCOL section 8 names.
"""

# ruff: noqa: E501

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Mutant(NamedTuple):
    rule: str
    file: str
    old: str
    new: str

    def apply(self, root: Path) -> None:
        """Patch the copy of the project at `root`."""
        path = root / "tiered" / self.file
        text = path.read_text()
        if text.count(self.old) != 1:
            raise LookupError(f"{self.rule}: {self.file} has {text.count(self.old)} times {self.old!r}")
        path.write_text(text.replace(self.old, self.new))


FLIGHT, LEVEL, CLOCK, ENTRY = "flight.py", "level.py", "clock.py", "entry.py"
STACK, READ, WRITE, LOAD, SCAN = (f"plans/{name}.py" for name in ("stack", "read", "write", "load", "scan"))
SYNC, AIO = "engine/sync.py", "engine/aio.py"
SHELF, SPACE = "backends/_shelf.py", "backends/_space.py"

MUTANTS = [
    # -- PROTOCOL section 8, as far as it applies ----------------------------------------------------------------
    Mutant(
        "8: memory put without stamp check (R12, present)", SHELF, "slot is not None and stamp < slot.stamp", "False"
    ),
    Mutant("8: memory put without stamp check (R12, high)", SHELF, "not home.admits(key, stamp)", "False"),
    Mutant(
        "8: memory before X (R13)",
        STACK,
        "    lost: dict[str, bytes] = {}\n",
        "    lost: dict[str, bytes] = {}\n    stack.remember(entries, began)\n",
    ),
    Mutant("8: dirty mark cleared by key (R16)", LEVEL, "self.marks.get(name, stamp) <= stamp and (", "True and ("),
    Mutant(
        "8: repair re-puts the remembered value (R8)",
        STACK,
        "[Void(level, space, list(stamps.items()))]",
        "[Put(level, space, [(k, e) for k in stamps if (e := getattr(stack.front, 'peek', lambda k: None)(k))])]",
    ),
    Mutant(
        "8: dirty mark after the acknowledgement (R13)",
        STACK,
        "            level.mark(self._stack.space, names, stamp)\n",
        "            pass\n",
    ),
    Mutant(
        "8: write does not detach the flight (R14)",
        WRITE,
        "            stack.flights.detach(stack.space, states)",
        "            pass",
    ),
    Mutant(
        "8: void (of the flight) only at the start of a write (R14)",
        WRITE,
        "        began = stack.clock.time()\n        try:\n",
        "        began = stack.clock.time()\n        stack.flights.detach(stack.space, states)\n        states = dict(states)\n"
        "        stack = __import__('dataclasses').replace(stack, flights=type(stack.flights)())\n        try:\n",
    ),
    Mutant(
        "8: void (of memory) only at the start of a delete (R12)",
        STACK,
        "    stack.front.drop_many([(key, entry.stamp) for key, entry in entries.items() if entry.kind != VALUE])\n",
        "",
    ),
    Mutant(
        "8: a retried write is stamped again (R2)",
        WRITE,
        "        yield Sleep(pause)\n",
        "        yield Sleep(pause)\n        batch = {k: e._replace(stamp=stack.clock.draw()) for k, e in batch.items()}\n",
    ),
    Mutant(
        "8: stamped again after an indeterminate try (R2)",
        WRITE,
        "            if progress.unknown.isdisjoint(refused):\n",
        "            if True:\n",
    ),
    Mutant(
        "8: cancelled authority write leaves M (R15)",
        STACK,
        "            if error is not None:\n",
        "            if isinstance(error, Exception):\n",
    ),
    Mutant(
        "8: BatchError before the upper tiers of the written half (R15)",
        STACK,
        "            if error is not None:\n",
        "            if error is not None and type(error).__name__ != 'BatchError':\n",
    ),
    Mutant(
        "8: `invalid` answered as absent",
        READ,
        " and found.kind != INVALID and found.stamp > floor",
        " and found.stamp > floor",
    ),
    Mutant(
        "8: TTL counted from promotion (R10, memory)",
        READ,
        "    stack.remember(entries, began)\n",
        "    stack.remember(entries, stack.clock.time())\n",
    ),
    Mutant(
        "8: TTL counted from promotion (R10, shared)",
        READ,
        '(key, stack.aged(entry, began, level.ttl), missed[key] or b"")',
        '(key, stack.aged(entry, stack.clock.time(), level.ttl), missed[key] or b"")',
    ),
    Mutant("8: get_or_load stores unconditionally (R20)", LOAD, "        if broken is None:\n", "        if False:\n"),
    Mutant(
        "8: an error of X read as a miss that then fills",
        READ,
        "            continue  # not a miss: a tier that failed is not filled either\n",
        "            answer = [None] * len(asked)\n",
    ),
    Mutant(
        "8: clock not advanced by stamps read (R1)",
        READ,
        "        stack.clock.observe(max(stamps, default=ZERO))\n",
        "        pass\n",
    ),
    Mutant(
        "8: clock not advanced by stamps that refuse (R1)",
        WRITE,
        "                stack.clock.observe(newer)\n",
        "                pass\n",
    ),
    Mutant("8: purge without grace (R28)", SCAN, "int(grace * 1000)", "0"),
    Mutant(
        "8: writer id kept over a fork (R1)",
        CLOCK,
        "        self._writer = os.urandom(4)\n",
        "        self._writer = getattr(self, '_writer', None) or os.urandom(4)\n",
    ),
    # -- R1, stamps ------------------------------------------------------------------------------------------------
    Mutant(
        "R1: a stamp drawn twice",
        CLOCK,
        "self._last = now if now > self._last else self._last + 1",
        "self._last = max(now, self._last)",
    ),
    Mutant(
        "R1: stamps follow a clock that steps back",
        CLOCK,
        "self._last = now if now > self._last else self._last + 1",
        "self._last = now",
    ),
    Mutant("R1: no horizon", CLOCK, "        if ahead > HORIZON:\n", "        if False:\n"),
    Mutant(
        "R1: one bad stamp spoils the batch",
        READ,
        "[_believed(stack, found) for found in answers]",
        "[CorruptEntry('') for found in answers]",
    ),
    Mutant("order: the older wins", ENTRY, "        return new.stamp > old.stamp\n", "        return True\n"),
    Mutant(
        "order: a value at the stamp of `invalid` is refused",
        ENTRY,
        "    return old.kind == INVALID and new.kind != INVALID\n",
        "    return False\n",
    ),
    Mutant("R28: an aged copy is never renewed", ENTRY, "    if new.kind == old.kind == VALUE:\n", "    if False:\n"),
    # -- R2, R15: writes -------------------------------------------------------------------------------------------
    Mutant(
        "R2: refused writes are dropped",
        WRITE,
        "        if not refused:\n            return progress.written",
        "        if True:\n            return progress.written",
    ),
    Mutant(
        "R2: everything is written again, not what was refused",
        WRITE,
        "pending = {key: states[key] for key in refused}",
        "pending = states",
    ),
    Mutant(
        "R2: what is known to be written is sent again",
        WRITE,
        "        batch = {key: entry for key, entry in batch.items() if key not in progress.written}\n",
        "",
    ),
    Mutant(
        "invariant 9: what a failed try wrote stays unknown",
        WRITE,
        "    progress.unknown.difference_update(progress.written)\n\n",
        "\n",
    ),
    Mutant("R2: no bound on tries", WRITE, "    for _ in range(TRIES):\n", "    for _ in range(10**6):\n"),
    Mutant("invariant 11: no end to trying", WRITE, " or pause is None or out_of_time", ""),
    Mutant("invariant 11: no bound on the time of tries", WRITE, " or out_of_time:", ":"),
    Mutant("invariant 11: writes are never tried again", WRITE, "or not is_outage(answer) or", "or True or"),
    Mutant("R16: tries go on against a skipped authority", WRITE, "if isinstance(answer, Skipped) or", "if"),
    Mutant(
        "invariant 9: what was written later stays unknown",
        WRITE,
        "            progress.unknown.difference_update(progress.written)\n",
        "",
    ),
    Mutant(
        "invariant 9: written keys of a batch forgotten",
        WRITE,
        "        progress.written.update((key, batch[key]) for key in error.written)\n",
        "        pass\n",
    ),
    Mutant(
        "invariant 9: unknown keys of a batch forgotten",
        WRITE,
        "        progress.unknown.update(error.unknown)\n",
        "",
    ),
    Mutant(
        "invariant 9: no answer means not written",
        WRITE,
        "    elif isinstance(error, Indeterminate):\n",
        "    elif False:\n",
    ),
    Mutant(
        "invariant 9: unknown called unavailable",
        WRITE,
        "    if not progress.written and not progress.unknown:\n",
        "    if True:\n",
    ),
    Mutant("invariant 9: one key gets a BatchError", WRITE, "    if len(names) == 1:\n", "    if False:\n"),
    Mutant("R15: memory keeps its entry", STACK, "        stack.front.drop_many(self._stamps.items())\n", ""),
    Mutant(
        "R15: shared tiers keep theirs",
        STACK,
        "            level.break_off(stack.space, self._stamps, stack.clock.monotonic())\n",
        "            pass\n",
    ),
    Mutant(
        "R12: in flight for ever",
        STACK,
        "        finally:\n            self._stack.front.leave(self._keys)\n",
        "        finally:\n            pass\n",
    ),
    Mutant(
        "R12: writes are not in flight",
        STACK,
        "        self._stack.front.enter(self._keys)\n        return self",
        "        return self",
    ),
    Mutant("R12: `high` not raised by what is dropped", SPACE, "        self._home.admits(key, stamp)\n", ""),
    # -- R13, R16, R17, R19: above the authority ---------------------------------------------------------------------
    Mutant(
        "R16: a failed put is not remembered",
        STACK,
        "                level.break_off(stack.space, stamps, stack.clock.monotonic())\n",
        "                pass\n",
    ),
    Mutant(
        "R16: an own put leaves the mark",
        STACK,
        "                level.unmark(stack.space, stamps)\n",
        "                pass\n",
    ),
    Mutant(
        "R17: memory is not written",
        STACK,
        "    stack.remember(entries, began)\n    stack.front.drop",
        "    stack.front.drop",
    ),
    Mutant(
        "R19: what X refused stays in memory",
        STACK,
        "    stack.front.drop_many(lost.items())  # R19: the other writer won\n",
        "",
    ),
    Mutant(
        "R10: a written copy without maximum age",
        STACK,
        "[(key, stack.aged(entry, began, level.ttl)) for key, entry in entries.items()]",
        "list(entries.items())",
    ),
    Mutant(
        "R10: the expiry of the record is ignored above",
        STACK,
        "        if entry.expires is not None and entry.expires <= limit:\n            return entry\n",
        "",
    ),
    Mutant("R10: the expiry of the record is ignored in memory", STACK, "min(own, ages)", "ages"),
    Mutant(
        "R16: a repair leaves the marks",
        STACK,
        "        level.unmark(space, stamps)\n    return True",
        "    return True",
    ),
    Mutant(
        "R16: a repair that fails clears the marks",
        STACK,
        "        if isinstance(answer, TieredError):\n            return False\n        level",
        "        level",
    ),
    Mutant(
        "R16: a tier is read though its repair failed",
        READ,
        "        if level.broken and not (yield from repair(stack, level)):\n            continue\n",
        "",
    ),
    Mutant(
        "R16: a read does not repair",
        READ,
        "if level.broken and not (yield from repair(stack, level)):",
        "if level.broken:",
    ),
    Mutant(
        "R16: dirty keys are read",
        LEVEL,
        "        return [key for key in keys if (space, key) not in self.marks]\n",
        "        return keys\n",
    ),
    Mutant(
        "R16: a mark sinks to an older stamp",
        LEVEL,
        "        with self.lock:\n            for key in keys:\n                name = (space, key)\n                self.marks[name] = max(stamp, self.marks.get(name, stamp))",
        "        with self.lock:\n            for key in keys:\n                name = (space, key)\n                self.marks[name] = stamp",
    ),
    Mutant(
        "R16: a broken mark sinks to an older stamp",
        LEVEL,
        "                self.marks[name] = max(stamp, self.marks.get(name, stamp))\n                self.broken",
        "                self.marks[name] = stamp\n                self.broken",
    ),
    Mutant("R16: a refused load clears older marks", STACK, "self._stamps, arrived=False)", "self._stamps)"),
    Mutant("R16: a refused load leaves its mark", LOAD, "        writing.withdraw()\n", ""),
    Mutant("R16: repairs without bound", LEVEL, "range(REPAIRS)", "range(10**9)"),
    Mutant("R16: marks without bound", LEVEL, "            if len(self.broken) > MARKS:\n", "            if False:\n"),
    Mutant(
        "R16: no floor on overflow",
        LEVEL,
        "                self.floor = max(self.floor, max(self.marks[name] for name in self.broken))\n",
        "",
    ),
    Mutant("R16: the floor is not looked at", READ, "found.stamp > floor:", "True:"),
    Mutant(
        "R16: the floor stays for ever", READ, 'level.floor if monotonic < level.floor_until else b""', "level.floor"
    ),
    Mutant(
        "R16: the floor goes at once",
        LEVEL,
        'self.floor_until = now + self.ttl.limit() if self.ttl else float("inf")',
        "self.floor_until = now",
    ),
    Mutant(
        "R16: flush does not reach a tier that is back",
        SCAN,
        "if level.broken and (yield from ping(level)) is None:",
        "if level.broken:",
    ),
    Mutant(
        "R16: flush repairs one batch only",
        SCAN,
        "while level.broken and (yield from repair(stack, level)):\n                pass",
        "yield from repair(stack, level)",
    ),
    Mutant(
        "R16: in a forked child marks are never repaired",
        LEVEL,
        "        self.broken = dict.fromkeys(self.marks)\n",
        "",
    ),
    # -- health ------------------------------------------------------------------------------------------------------
    Mutant(
        "health: never skipped",
        LEVEL,
        "            if self.failures >= PATIENCE and now < self.probe_at:\n",
        "            if False:\n",
    ),
    Mutant(
        "health: everyone probes",
        LEVEL,
        "            self.probe_at = now + self._pause()\n            self.probing",
        "            self.probing",
    ),
    Mutant("health: pauses do not grow", LEVEL, "2.0 ** max(0, min(self.failures - PATIENCE, 10))", "1.0"),
    Mutant("health: pauses without bound", LEVEL, "min(LONGEST_PAUSE, ", "max(0.0, "),
    Mutant("health: one outage counted many times", LEVEL, "if self.failures < PATIENCE or self.probing:", "if True:"),
    Mutant("health: success forgets nothing", LEVEL, "        self.failures = 0\n", "        pass\n"),
    Mutant("health: failures are not noticed", STACK, "            level.failed(now, answer)\n", ""),
    Mutant(
        "health: successes are not noticed",
        STACK,
        "            level.worked()\n    return answers",
        "            pass\n    return answers",
    ),
    Mutant("health: ping does not bring a tier back", SCAN, "    level.worked()\n", ""),
    Mutant("health: errors without their tier", STACK, "            answer.at(level.name)\n", ""),
    # -- reads -------------------------------------------------------------------------------------------------------
    Mutant(
        "invariant 2: unavailable is absent",
        READ,
        "        if isinstance(answer, TieredError):\n            raise answer\n",
        "        if isinstance(answer, TieredError):\n            return sight\n",
    ),
    Mutant(
        "invariant 2: what cannot be read is absent",
        READ,
        "            raise error\n        return sight.live",
        "            pass\n        return sight.live",
    ),
    Mutant(
        "invariant 2: keys that cannot be listed are none",
        SCAN,
        "    if isinstance(answer, TieredError):\n        raise answer\n    keys",
        "    if isinstance(answer, TieredError):\n        return []\n    keys",
    ),
    Mutant(
        "invariant 6: expired copies are served",
        READ,
        "            if found.expires is None or found.expires > now:\n",
        "            if True:\n",
    ),
    Mutant(
        "invariant 6: the authority's expired values are served",
        READ,
        "            if found.live(now):\n",
        "            if found.kind == VALUE:\n",
    ),
    Mutant(
        "invariant 6: a batch of values is live, expired or not",
        "backend.py",
        " and min(expiries, default=now_ms + 1) > now_ms",
        "",
    ),
    Mutant("a batch of anything is live", "backend.py", "    return kinds == {VALUE} and min", "    return min"),
    Mutant("R12: reads are not in flight", READ, "    stack.front.enter(keys)\n    try:\n", "    try:\n"),
    Mutant(
        "R12: reads are in flight for ever",
        READ,
        "    finally:\n        stack.front.leave(keys)\n",
        "    finally:\n        pass\n",
    ),
    Mutant("a read fills nothing above", READ, "    yield from ask(stack, fills)\n", "    yield from ()\n"),
    Mutant("a read keeps nothing in memory", READ, "    stack.remember(entries, began)\n", ""),
    Mutant(
        "deleted rows are asked for again and again", READ, "        elif found is None:\n", "        elif False:\n"
    ),
    Mutant("deleted is not copied above", READ, "            if found.kind == DELETED:\n", "            if False:\n"),
    Mutant(
        "what one tier answered is asked of the next",
        READ,
        "            wanted = [key for key in wanted if key not in copies]\n",
        "",
    ),
    # -- get_or_load -------------------------------------------------------------------------------------------------
    Mutant(
        "R20: loaded though the authority's answer is no miss",
        LOAD,
        "        if broken is not None and not isinstance(broken, CorruptEntry | UnknownVersion):\n            raise broken\n",
        "",
    ),
    Mutant("R20: None is stored", LOAD, "        if value is None:\n            return None\n", ""),
    Mutant("R20: not stored, and kept above", LOAD, "            writing.abandon()\n", ""),
    Mutant("R20: refused, and published all the same", LOAD, "        if not answer:\n", "        if True:\n"),
    Mutant(
        "R20: refused, and what is stored is not returned",
        LOAD,
        "        return found.value if isinstance(found, Entry) and found.live(stack.now_ms()) else value\n",
        "        return value\n",
    ),
    Mutant(
        "R20: refused, and what is gone is returned", LOAD, " and found.live(stack.now_ms()) else value", " else value"
    ),
    Mutant(
        "R20: what was loaded is not looked at",
        LOAD,
        "value = admit((yield Load(loader, key, flight)))",
        "value = yield Load(loader, key, flight)",
    ),
    Mutant(
        "flight: an error is not for the waiters",
        LOAD,
        "        flight.land(caller.alive, Outcome(error=error))\n",
        "        flight.hand_over(caller.alive)\n",
    ),
    Mutant(
        "flight: a cancellation is for the waiters",
        LOAD,
        "    except BaseException:  # cancelled, or the generator is thrown away: not an answer for the others\n        flight.hand_over(caller.alive)\n",
        "    except BaseException as error:\n        flight.land(caller.alive, Outcome(error=error))\n",
    ),
    Mutant(
        "flight: a waiter raises nothing",
        LOAD,
        "        if outcome.error is not None:\n            raise outcome.error\n",
        "",
    ),
    Mutant(
        "flight: a flight that is over is led again",
        LOAD,
        "        if flight.outcome is None:  #",
        "        if True:  #",
    ),
    Mutant("flight: waiting is never over", LOAD, "            stack.flights.joined(flight)\n", "            pass\n"),
    # -- flights -----------------------------------------------------------------------------------------------------
    Mutant(
        "flight: late subscribers wait for ever",
        FLIGHT,
        "            if self.outcome is None:\n                self.waiters.append(waiter)\n",
        "            self.waiters.append(waiter)\n            if self.outcome is not None:\n                return None\n",
    ),
    Mutant(
        "flight: cancelled waiters stay",
        FLIGHT,
        "                self.waiters.remove(waiter)\n",
        "                pass\n",
    ),
    Mutant("flight: nobody is told", FLIGHT, "        for waiter in waiters:\n            waiter.wake(outcome)\n", ""),
    Mutant(
        "flight: a leader of the past lands it",
        FLIGHT,
        "            if self.alive is not leader:\n                return\n            self._end",
        "            self._end",
    ),
    Mutant(
        "flight: a leader of the past hands over",
        FLIGHT,
        "if self.outcome is not None or self.alive is not leader:",
        "if False:",
    ),
    Mutant("flight: the new leader is not known", FLIGHT, "self.alive = leader = waiter.alive", "leader = self.alive"),
    Mutant(
        "flight: waiters out of reach are not passed over",
        FLIGHT,
        "            if waiter.wake(LEAD):\n                return\n",
        "            waiter.wake(LEAD)\n            return\n",
    ),
    Mutant(
        "flight: all waiters lead",
        FLIGHT,
        "            if waiter.wake(LEAD):\n                return\n",
        "            waiter.wake(LEAD)\n",
    ),
    Mutant("flight: no rescue", FLIGHT, "        if not leader():\n", "        if False:\n"),
    Mutant("flight: rescue from the living", FLIGHT, "        if not leader():\n", "        if True:\n"),
    Mutant(
        "flight: sync code on a loop's thread waits", FLIGHT, "if not caller.may_wait or _waits_for", "if _waits_for"
    ),
    Mutant("flight: loaders wait in a circle", FLIGHT, " or _waits_for(flight, held):", ":"),
    Mutant("flight: loaders wait for themselves only", FLIGHT, "            todo += flight.waits_for\n", ""),
    Mutant(
        "flight: outer loads are not seen to wait",
        FLIGHT,
        "            for outer in held:  #",
        "            for outer in held[-1:]:  #",
    ),
    Mutant(
        "flight: waiting is held against a loader for ever",
        FLIGHT,
        "                    outer.waits_for.remove(flight)\n",
        "                    pass\n",
    ),
    Mutant(
        "flight: flights are never over",
        FLIGHT,
        "            del self.group.flights[self.name]\n",
        "            pass\n",
    ),
    Mutant(
        "flight: the flight of another is forgotten",
        FLIGHT,
        "if self.group.flights.get(self.name) is self:",
        "if self.name in self.group.flights:",
    ),
    Mutant(
        "flight: a lost lead is not over",
        FLIGHT,
        "                    self._end(LEAD)\n                    return\n",
        "                    self.outcome = LEAD\n                    return\n",
    ),
    Mutant("flight: a child waits for its parent", "store.py", "        self._stack.flights.forked()\n", ""),
    # -- engines -----------------------------------------------------------------------------------------------------
    Mutant(
        "engine: parallel is one after the other (sync)",
        SYNC,
        "        futures = [_pool().submit(self.perform, ask) for ask in effect.asks[1:]]\n",
        "        from concurrent.futures import Future\n        futures = []\n        for ask in effect.asks[1:]:\n            futures.append(Future())\n            try:\n                futures[-1].set_result(self.perform(ask))\n            except Exception as error:\n                futures[-1].set_exception(error)\n",
    ),
    Mutant(
        "engine: parallel is one after the other (async)",
        AIO,
        "return await asyncio.gather(*map(self.perform, effect.asks), return_exceptions=True)",
        "return [(await asyncio.gather(self.perform(a), return_exceptions=True))[0] for a in effect.asks]",
    ),
    Mutant(
        "engine: one failure loses the others' answers (async)",
        AIO,
        "return_exceptions=True",
        "return_exceptions=False",
    ),
    Mutant(
        "engine: one failure loses the others' answers (sync)",
        SYNC,
        "            first = error\n",
        "            raise\n",
    ),
    Mutant(
        "engine: a loader is not known as one (sync)",
        SYNC,
        "            with loading(effect.flight):\n                return effect",
        "            with loading(None):\n                return effect",
    ),
    Mutant(
        "engine: a loader is not known as one (async)",
        AIO,
        "            with loading(effect.flight):\n",
        "            with loading(None):\n",
    ),
    Mutant(
        "engine: an interrupted thread keeps the lead",
        SYNC,
        "        if woken and woken[0].lead:\n            flight.hand_over(caller.alive)\n",
        "",
    ),
    Mutant(
        "engine: an interrupted thread misses the news",
        SYNC,
        "        if not flight.unsubscribe(waiter) and not woken:\n            gate.acquire()  # the news is on its way\n",
        "        flight.unsubscribe(waiter)\n",
    ),
    Mutant("engine: a waiting thread never looks up", SYNC, "            flight.rescue()\n", "            pass\n"),
    Mutant("engine: a waiting task never looks up", AIO, "            flight.rescue()\n", "            pass\n"),
    Mutant(
        "engine: a cancelled task keeps the lead, told before",
        AIO,
        "        if woken.done() and not woken.cancelled() and woken.result().lead:\n            flight.hand_over(caller.alive)\n",
        "",
    ),
    Mutant(
        "engine: a cancelled task keeps the lead, told after",
        AIO,
        "        elif outcome.lead:  # cancelled while the news was on its way\n            flight.hand_over(caller.alive)\n",
        "",
    ),
    Mutant("engine: a cancelled task still waits", AIO, "        flight.unsubscribe(waiter)\n", ""),
    Mutant(
        "engine: a closed loop breaks the leader",
        AIO,
        "        except RuntimeError:  # the loop is closed: this waiter is gone\n            return False\n",
        "        finally:\n            pass\n",
    ),
    Mutant(
        "engine: what is thrown away fails the flight",
        SYNC,
        "            except ValueError:  #",
        "            except KeyError:  #",
    ),
    Mutant(
        "engine: a sync caller on a loop's thread may wait",
        SYNC,
        "return Caller(threading.current_thread().is_alive, not on_loop)",
        "return Caller(threading.current_thread().is_alive, True)",
    ),
    Mutant(
        "engine: a task on a closed loop is alive",
        AIO,
        "Caller(asyncio.get_running_loop().is_running, may_wait=True)",
        "Caller(lambda: True, may_wait=True)",
    ),
    # -- the store ---------------------------------------------------------------------------------------------------
    Mutant("purge: writes purge without bound", STACK, "min(5_000, 64 + 2 * self.written)", "10**9"),
    Mutant(
        "purge: with every write", STACK, "        if now < self.due and self.written < 1_000:\n", "        if False:\n"
    ),
    Mutant(
        "purge: fails the write",
        SCAN,
        "            except TieredError as error:  # the write itself",
        "            except KeyError as error:  # the write itself",
    ),
    Mutant(
        "purge: a shared tier learns of deletes that never were",
        SCAN,
        "into = DELETED if level is stack.authority else INVALID",
        "into = DELETED",
    ),
    Mutant(
        "purge: the authority forgets the order of writes",
        SCAN,
        "into = DELETED if level is stack.authority else INVALID",
        "into = INVALID",
    ),
    Mutant("closed: memory still answers", "operations.py", "        self._hit = self._hits = _refuse\n", ""),
    Mutant(
        "closed: other methods still answer",
        "operations.py",
        "        if self._closed:\n            _refuse(None)\n",
        "        pass\n",
    ),
    Mutant(
        "closed: without repair",
        "store.py",
        "                self._engine.run(scan.flush(self._stack))\n",
        "                pass\n",
    ),
    Mutant("closed: twice", "operations.py", "        if self._closed:\n            return False\n", ""),
]
