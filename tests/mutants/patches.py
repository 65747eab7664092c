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
SYNC, AIO, BACKGROUND = (f"engine/{name}.py" for name in ("sync", "aio", "background"))
SHELF, SPACE = "backends/_shelf.py", "backends/_space.py"
PUBLISH, MARKERS, CLEAR, OVERLAP = "plans/publish.py", "plans/strict.py", "plans/clear.py", "overlap.py"
ASSEMBLY, LIFECYCLE, OPERATIONS, STORE = "assembly.py", "lifecycle.py", "operations.py", "store.py"

MUTANTS = [
    # -- PROTOCOL section 8, as far as it applies ----------------------------------------------------------------
    Mutant(
        "8: memory put without stamp check (R12, present)", SHELF, "slot is not None and stamp < slot.stamp", "False"
    ),
    Mutant("8: memory put without stamp check (R12, high)", SHELF, "not home.admits(key, stamp)", "False"),
    Mutant(
        "8: memory before X (R13)",
        PUBLISH,
        "        for level, answer in zip(stack.uppers, (yield from ask(stack, _puts(",
        "        stack.remember(entries, began)\n"
        "        for level, answer in zip(stack.uppers, (yield from ask(stack, _puts(",
    ),
    Mutant(
        "8: dirty mark cleared by key (R16)",
        LEVEL,
        "                if self.marks.get(name, stamp) <= stamp:\n",
        "                if True:\n",
    ),
    Mutant(
        "8: repair re-puts the remembered value (R8)",
        STACK,
        "[Void(level, space, list(stamps.items()))]",
        "[Put(level, space, [(k, e) for k in stamps if (e := getattr(stack.front, 'peek', lambda k: None)(k))])]",
    ),
    Mutant(
        "8: dirty mark after the acknowledgement (R13)",
        PUBLISH,
        "in level.mark(self._stack.space, names, stamp).items():\n",
        "in dict[str, bytes]().items():\n",
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
        PUBLISH,
        "    stack.front.drop_many(gone)\n",
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
        PUBLISH,
        "            if error is not None:\n",
        "            if isinstance(error, Exception):\n",
    ),
    Mutant(
        "8: BatchError before the upper tiers of the written half (R15)",
        PUBLISH,
        "            if error is not None:\n",
        "            if error is not None and type(error).__name__ != 'BatchError':\n",
    ),
    Mutant(
        "8: `invalid` answered as absent",
        READ,
        "            and found.kind != INVALID\n",
        "",
    ),
    Mutant(
        "8: TTL counted from promotion (R10, memory)",
        READ,
        "    stack.remember(entries, began, generation)\n",
        "    stack.remember(entries, stack.clock.time(), generation)\n",
    ),
    Mutant(
        "8: TTL counted from promotion (R10, shared)",
        READ,
        '(key, stack.aged(entry, began, level.ttl), missed[key] or b"")',
        '(key, stack.aged(entry, stack.clock.time(), level.ttl), missed[key] or b"")',
    ),
    Mutant(
        "8: get_or_load stores unconditionally (R20)",
        LOAD,
        "    swaps = [(key, entry, missing.state[key]) for key, entry in sent.items() if key in missing.state]\n",
        "    missing.state.clear()\n    swaps: list[Any] = []\n",
    ),
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
        "        if not pending:\n            return progress.written",
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
    Mutant("invariant 11: no bound on the time of tries", WRITE, " or out_of_time or late:", " or late:"),
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
    Mutant("R15: memory keeps its entry", PUBLISH, "        stack.front.drop_many(stamps.items())\n", ""),
    Mutant(
        "R15: shared tiers keep theirs",
        PUBLISH,
        "            level.break_off(stack.space, stamps, stack.clock.monotonic())\n\n    def withdraw",
        "            pass\n\n    def withdraw",
    ),
    Mutant(
        "R12: in flight for ever",
        PUBLISH,
        "        self._stack.front.leave(self._keys)\n",
        "",
    ),
    Mutant(
        "R12: writes are not in flight",
        PUBLISH,
        "        self._stack.front.enter(self._keys)\n",
        "",
    ),
    Mutant("R12: `high` not raised by what is dropped", SPACE, "        self._home.admits(key, stamp)\n", ""),
    # -- R13, R16, R17, R19: above the authority ---------------------------------------------------------------------
    Mutant(
        "R16: a failed put is not remembered",
        PUBLISH,
        "                level.break_off(stack.space, stamps, stack.clock.monotonic())\n",
        "                pass\n",
    ),
    Mutant(
        "R16: an own put leaves the mark",
        PUBLISH,
        "                level.unmark(stack.space, stamps)\n",
        "                pass\n",
    ),
    Mutant(
        "R17: memory is not written",
        PUBLISH,
        "    stack.remember(kept, began)\n",
        "",
    ),
    Mutant(
        "R19: what X refused stays in memory",
        PUBLISH,
        "    stack.front.drop_many(lost.items())  # R19: the other writer won\n",
        "",
    ),
    Mutant(
        "R10: a written copy without maximum age",
        PUBLISH,
        "        else (key, stack.aged(entry, began, level.ttl))\n",
        "        else (key, entry)\n",
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
        "stamp if old is None else max(stamp, old)",
        "stamp",
    ),
    Mutant(
        "R16: a broken mark sinks to an older stamp",
        LEVEL,
        "                self.marks[name] = max(stamp, self.marks.get(name, stamp))\n                self.broken",
        "                self.marks[name] = stamp\n                self.broken",
    ),
    Mutant(
        "R16: a refused load clears older marks",
        LEVEL,
        "                if key in before:\n",
        "                if False:\n",
    ),
    Mutant("R16: a refused load clears newer marks", LEVEL, "if self.marks.get(name) != stamp:  #", "if False:  #"),
    Mutant(
        "R16: what is called off and was marked before is not repaired",
        LEVEL,
        "                    self.marks[name] = before[key]\n                    self.broken[name] = None\n",
        "                    self.marks[name] = before[key]\n",
    ),
    Mutant(
        "R10: a wall clock that steps back lengthens the life of copies",
        "backends/_steps.py",
        "back = ahead < self._ahead - STEP",
        "back = False",
    ),
    Mutant(
        "R10: a wall clock that steps back costs the authority's entries",
        SHELF,
        "                if home.owner is not None:  #",
        "                if True:  #",
    ),
    Mutant("R16: a refused load leaves its mark", LOAD, "        writing.withdraw(names)\n", ""),
    Mutant("R16: repairs without bound", LEVEL, "range(REPAIRS)", "range(10**9)"),
    Mutant("R16: marks without bound", LEVEL, "            if len(self.broken) > MARKS:\n", "            if False:\n"),
    Mutant(
        "R16: no floor on overflow",
        LEVEL,
        "                self._raise_floor(max(self.marks[name] for name in self.broken), now)\n",
        "",
    ),
    Mutant(
        "R16: the floor is not looked at", READ, "            and not (floors and _under(floors, key, found))\n", ""
    ),
    Mutant(
        "R16: the floor stays for ever",
        LEVEL,
        '[("", self.floor)] if now < self.floor_until else []',
        '[("", self.floor)]',
    ),
    Mutant(
        "R16: the floor goes at once",
        LEVEL,
        "self.floor_until = self._age(now)",
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
        "    if isinstance(answer, TieredError):\n        raise answer\n    return Page",
        "    if isinstance(answer, TieredError):\n        return Page((), None)\n    return Page",
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
    Mutant("a read keeps nothing in memory", READ, "    stack.remember(entries, began, generation)\n", ""),
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
    # -- R18, strict -------------------------------------------------------------------------------------------------
    Mutant("8: strict ignores a failed marker (R18)", MARKERS, "    if failed is not None:\n", "    if False:\n"),
    Mutant(
        "R18: a tier that cannot be looked at is passed over",
        MARKERS,
        "            raise _unannounced(level, answer)\n",
        "            continue\n",
    ),
    Mutant("R18: no markers", WRITE, "            if stack.strict and stack.uppers:\n", "            if False:\n"),
    Mutant(
        "R18: a refused marker does not keep the write from the authority",
        WRITE,
        "            if not refused:\n                refused = yield",
        "            if True:\n                refused = yield",
    ),
    Mutant(
        "R18: what is stamped again has no marker",
        WRITE,
        "            if stack.strict and stack.uppers:\n",
        "            if stack.strict and stack.uppers and not announced:\n",
    ),
    Mutant(
        "R18: markers for ever",
        MARKERS,
        "swaps.append((key, Entry(INVALID, batch[key].stamp, until,",
        "swaps.append((key, Entry(INVALID, batch[key].stamp, None,",
    ),
    Mutant(
        "R18: markers stay though nothing was written",
        WRITE,
        "        yield from retract(stack, markers, untouched)\n",
        "",
    ),
    Mutant(
        "R18: markers of what may have been written are taken back",
        WRITE,
        "if key not in progress.written and key not in progress.unknown]\n    if announced",
        "if key not in progress.written]\n    if announced",
    ),
    Mutant(
        "R18: what was not written is distrusted all the same",
        WRITE,
        "        writing.withdraw(announced.intersection(untouched))\n",
        "",
    ),
    Mutant(
        "R8: a marker that is taken back lets anything older in",
        MARKERS,
        "        own = [(key, *placed[key]) for key in keys if key in placed]\n",
        "        own = [(key, placed[key][0], None) for key in keys if key in placed]\n",
    ),
    Mutant(
        "R8: a marker is placed over what nobody looked at",
        MARKERS,
        "        seen = below.get(level, {})\n",
        "        seen = dict[str, bytes | None]()\n",
    ),
    Mutant(
        "R8: a marker of a marker is taken back to the first marker",
        MARKERS,
        "before[1] if before is not None and before[0] == below else below",
        "below",
    ),
    Mutant(
        "R18: markers over something newer",
        MARKERS,
        "            if stamp is not None and stamp > batch[key].stamp:\n",
        "            if False:\n",
    ),
    Mutant(
        "R18: who comes in between is not noticed",
        MARKERS,
        "                    newer.setdefault(key, batch[key].stamp)\n",
        "                    pass\n",
    ),
    Mutant(
        "R1: a marker refused from too far ahead is refused for ever",
        READ,
        "        yield from expel(stack, level, far)\n    return believed",
        "        yield from ()\n    return believed",
    ),
    Mutant(
        "R1: a leased marker refused from too far ahead is refused for ever",
        MARKERS,
        "        yield from expel(stack, level, far)\n",
        "        yield from ()\n",
    ),
    Mutant(
        "R18: the last step replaces anything older",
        PUBLISH,
        "        Swap(level, stack.space, [(key, entry, entry.stamp) for key, entry in _aged(stack, level, entries, began)])\n",
        "        Overwrite(level, stack.space, _aged(stack, level, entries, began))\n",
    ),
    Mutant(
        "R18: the last step leaves what is older",
        PUBLISH,
        "            [voided] = yield from ask(stack, [Void(level, stack.space, list(gone.items()))])\n",
        "            voided = None\n",
    ),
    Mutant(
        "R19: what the last step lost stays in memory", PUBLISH, "            lost.update(gone)\n", "            pass\n"
    ),
    Mutant("R18: a last step that failed is not repaired", PUBLISH, "        if failed:\n", "        if False:\n"),
    # -- R17, around -------------------------------------------------------------------------------------------------
    Mutant("R17: around puts", WRITE, "around=stack.around,", "around=False,"),
    Mutant(
        "R17: around keeps what was written in memory",
        PUBLISH,
        "    if around:\n        kept",
        "    if False:\n        kept",
    ),
    Mutant(
        "R16: a void that failed is not remembered",
        PUBLISH,
        "        if isinstance(answer, TieredError):\n            level.break_off(stack.space, stamps, stack.clock.monotonic())\n        else:\n            level.unmark(stack.space, stamps)\n\n\ndef _replace",
        "        level.unmark(stack.space, stamps)\n\n\ndef _replace",
    ),
    # -- R9, R12, R20, R22, E11: authorities without stamps ------------------------------------------------------------
    Mutant("R9: overlapping writes are kept", PUBLISH, "if writing.alone(key)}", "if True}"),
    Mutant("R9: no write is kept", PUBLISH, "if writing.alone(key)}", "if False}"),
    Mutant("R9: who begins first does not see the overlap", OVERLAP, "writers[other] = True", "pass"),
    Mutant(
        "R9: who begins last does not see the overlap", OVERLAP, "writers[writer] = overlap", "writers[writer] = False"
    ),
    Mutant(
        "R9: once overlapped, for ever overlapped",
        OVERLAP,
        "                writers.pop(writer, None)\n",
        "",
    ),
    Mutant(
        "R9: overlaps of all namespaces at once",
        OVERLAP,
        "bool(writers.keys() - {writer})",
        "any(k == key and set(them) - {writer} for (_, k), them in self._writing.items())",
    ),
    Mutant(
        "R12: a write over plain has the stamp of its start",
        PUBLISH,
        "    if not stack.stamped:\n        fresh",
        "    if False:\n        fresh",
    ),
    Mutant(
        "R15: a bad write over plain drops up to its start only",
        PUBLISH,
        "        if stamps and not stack.stamped:  #",
        "        if False:  #",
    ),
    Mutant("R12: plain reads have no generation", READ, "None if stack.stamped else stack.clock.draw()", "None"),
    Mutant(
        "R12: the generation is drawn after the read",
        READ,
        "        yield from _keep(stack, gaps, found, began, generation)\n    return sight",
        "        yield from _keep(stack, gaps, found, began, generation and stack.clock.draw())\n    return sight",
    ),
    Mutant("E11: a timed-out write is tried again", WRITE, "bool(progress.unknown) and not stack.stamped", "False"),
    Mutant(
        "E11: nothing over plain is tried again",
        WRITE,
        "bool(progress.unknown) and not stack.stamped",
        "not stack.stamped",
    ),
    Mutant(
        "R22: a ttl that cannot be kept is taken",
        OPERATIONS,
        "if ttl is not None and self._made.forgetful is not None:",
        "if False:",
    ),
    Mutant("R22: default_ttl is looked at with the first write", STORE, "        self._expiry(UNSET)  # R22\n", ""),
    Mutant(
        "R9: plain middles are taken",
        ASSEMBLY,
        "        elif not tier.store.capabilities.stamps:\n",
        "        elif False:\n",
    ),
    Mutant(
        "R9: copies of plain values are shared",
        ASSEMBLY,
        "        elif not (placed[-1].store.capabilities.stamps or tier.store.capabilities.leases):\n",
        "        elif False:\n",
    ),
    Mutant("immutable: copies age", ASSEMBLY, "return None if immutable else", "return"),
    Mutant(
        "immutable: shared tiers over plain are voided, not filled",
        PUBLISH,
        "    if around or not (stack.stamped or stack.immutable):\n",
        "    if around or not stack.stamped:\n",
    ),
    # -- invalidate, clear, scoped -------------------------------------------------------------------------------------
    Mutant(
        "invalidate: memory keeps its copy",
        CLEAR,
        "        stack.front.drop_many([(key, stamp) for key in names])\n",
        "",
    ),
    Mutant(
        "invalidate: shared tiers keep theirs",
        CLEAR,
        "        yield from void(stack, dict.fromkeys(names, stamp))\n",
        "",
    ),
    Mutant("invalidate: loads under way are joined", CLEAR, "        stack.flights.detach(stack.space, names)\n", ""),
    Mutant(
        "invalidate: is not in flight (R12)",
        CLEAR,
        "        stamp = writing.stamp(names)\n",
        "        stamp = stack.clock.draw()\n",
    ),
    Mutant(
        "invalidate: plain reads meanwhile stay",
        CLEAR,
        "            stamp = stack.clock.draw()  # above",
        "            pass  # above",
    ),
    Mutant(
        "R1: invalidate by a slow clock leaves what a fast one wrote",
        CLEAR,
        "        yield from _catch_up(stack, names)\n",
        "",
    ),
    Mutant(
        "R1: clear by a slow clock leaves what a fast one wrote",
        CLEAR,
        "            yield from _catch_up(stack, keys)\n",
        "",
    ),
    Mutant(
        "clear: copies that the authority does not hold stay",
        CLEAR,
        "            yield from _void_all(stack, level, prefix)\n",
        "            yield from ()\n",
    ),
    Mutant(
        "clear: a copy is voided where it is held alone",
        CLEAR,
        "            yield from void(stack, dict.fromkeys(keys, stack.clock.draw()))\n",
        "            from ..effects import Void\n            yield from ask(stack, [Void(level, stack.space, [(key, stack.clock.draw()) for key in keys])])\n",
    ),
    Mutant(
        "clear: a tier that cannot be listed is trusted",
        CLEAR,
        "            level.distrust(stack.space, prefix, stack.clock.draw(), stack.clock.monotonic())\n",
        "",
    ),
    Mutant("clear: what only memory holds stays", CLEAR, "    stack.front.sweep(prefix, stack.clock.draw())\n", ""),
    Mutant("clear: the first page only", CLEAR, "        if after is None:\n            break\n", "        break\n"),
    Mutant(
        "clear: the first page of copies only",
        CLEAR,
        "        if after is None:\n            return\n",
        "        return\n",
    ),
    Mutant("clear: loads under way are joined", CLEAR, "    stack.flights.detach(stack.space, flying)\n", ""),
    Mutant("clear: loads of other keys are detached", CLEAR, " and key.startswith(prefix)]", "]"),
    Mutant(
        "clear: scopes stay",
        OPERATIONS,
        "        if everything:\n            for space",
        "        if False:\n            for space",
    ),
    Mutant(
        "clear: scopes go with a prefix too",
        OPERATIONS,
        "        if everything:\n            for space",
        "        if True:\n            for space",
    ),
    Mutant(
        "clear: scopes held above only stay",
        CLEAR,
        "    for level in (*stack.uppers, stack.authority):\n        [answer] = yield from ask(stack, [Spaces",
        "    for level in (stack.authority,):\n        [answer] = yield from ask(stack, [Spaces",
    ),
    Mutant(
        "clear: scopes held in memory only stay",
        CLEAR,
        "    found = set(stack.front.spaces())\n",
        "    found = set[str]()\n",
    ),
    Mutant(
        "clear: scopes that cannot be named stay",
        CLEAR,
        "        elif level is stack.authority:\n            raise answer\n",
        "",
    ),
    Mutant(
        "clear: all=True is not said", OPERATIONS, "        if not start and not everything:\n", "        if False:\n"
    ),
    Mutant("clear: a prefix and all=True", OPERATIONS, "        if start and everything:\n", "        if False:\n"),
    Mutant("scoped: not injective", STORE, "self._stack.space + SCOPE + name", "self._stack.space + name"),
    Mutant(
        "purge: a scope that nobody writes to any more keeps its expired rows",
        STACK,
        "list(dict.fromkeys((space, longest)))",
        "[space]",
    ),
    Mutant(
        "two stacks over one memory share their copies",
        ASSEMBLY,
        "object() if fronted else None",
        "1 if fronted else None",
    ),
    Mutant(
        "a tier that forgets, without leases, above another",
        ASSEMBLY,
        "elif tier.store.capabilities.forgets and not tier.store.capabilities.leases:",
        "elif False:",
    ),
    Mutant(
        "scoped: a closed scope closes its parent's tiers",
        LIFECYCLE,
        "return self._made.backends() if self._parent is None else []",
        "return self._made.backends()",
    ),
    Mutant(
        "scoped: a closed parent leaves its scopes open",
        LIFECYCLE,
        "            scope._shut()  # noqa: SLF001\n",
        "            pass\n",
    ),
    Mutant(
        "scoped: a closed scope scopes on",
        STORE,
        "        self._usable()\n        if not check_namespace",
        "        if not check_namespace",
    ),
    Mutant(
        "scoped: a parent's loads are joined",
        "plans/load.py",
        "stack.flights.join(stack.space, pending,",
        "stack.flights.join('', pending,",
    ),
    # -- get_or_load -------------------------------------------------------------------------------------------------
    Mutant(
        "R20: loaded though the authority's answer is no miss",
        LOAD,
        "        elif error is not None:\n            raise error\n",
        "        elif error is not None:\n            missing.broken.append(key)\n",
    ),
    Mutant(
        "R20: None is stored",
        "operations.py",
        "            if value is None:\n                return {}\n",
        "            value = value or b''\n",
    ),
    Mutant(
        "R20: over plain, stored though a write overlapped",
        LOAD,
        "{key for key in entries if not writing.alone(key)}",
        "set[str]()",
    ),
    Mutant("R20: not stored, and kept above", LOAD, "            writing.abandon()\n", ""),
    Mutant(
        "R20: refused, and published all the same",
        LOAD,
        "    taken = {key: entry for key, entry in entries.items() if key not in refused}\n",
        "    taken = entries\n",
    ),
    Mutant(
        "R20: refused, and what is stored is not returned",
        LOAD,
        "                outcomes[key] = Outcome(found.value, expires=found.expires)\n",
        "                pass\n",
    ),
    Mutant(
        "R20: refused, and what is gone is returned",
        LOAD,
        "            live = isinstance(found, Entry) and found.live(stack.now_ms())\n",
        "            live = isinstance(found, Entry)\n",
    ),
    Mutant(
        "R20: what was loaded is not looked at",
        "operations.py",
        "Fresh(check_value(value, self._made.max_value), *expiries())",
        "Fresh(value, *expiries())",
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
        "            flight.hand_over(caller.alive)\n\n\ndef _land",
        "            flight.land(caller.alive, Outcome(error=LookupError()))\n\n\ndef _land",
    ),
    Mutant(
        "flight: a waiter raises nothing",
        LOAD,
        "                if outcome.error is not None:\n                    raise outcome.error\n",
        "",
    ),
    Mutant(
        "flight: a flight that is over is led again",
        LOAD,
        "                if outcome.lead and flight.outcome is None:  #",
        "                if outcome.lead:  #",
    ),
    Mutant(
        "flight: waiting is never over",
        LOAD,
        "            stack.flights.joined(theirs.values(), held)\n",
        "            pass\n",
    ),
    Mutant(
        "invariant 6: who joins late gets what has expired",
        LOAD,
        "(outcome.expires is not None and outcome.expires <= joined)",
        "False",
    ),
    # -- many keys -----------------------------------------------------------------------------------------------------
    Mutant(
        "mget_or_load: waits before it has loaded its own",
        LOAD,
        "            if own:\n                values.update((yield from _lead(stack, own, source, caller)))\n            values.update((yield from _meanwhile(stack, theirs, source)))\n",
        "            for key, flight in theirs.items():\n                yield Join(flight, caller)\n            if own:\n                values.update((yield from _lead(stack, own, source, caller)))\n",
    ),
    Mutant(
        "mget_or_load: keys that are there wait for the loader",
        LOAD,
        "    _land(own, outcomes, outcomes, caller)\n    return missing\n",
        "    return missing\n",
    ),
    Mutant(
        "mget_or_load: the loader is known by one of its keys only",
        LOAD,
        "(yield Load(source.load, list(keys), flights))",
        "(yield Load(source.load, list(keys), flights[:1]))",
    ),
    Mutant(
        "mget_or_load: of a batch that is lost one key is handed over",
        LOAD,
        "            _hand_over(own, caller)  #",
        "            _hand_over(dict([*own.items()][:1]), caller)  #",
    ),
    Mutant(
        "mget_or_load: expired in flight, and left out",
        LOAD,
        "outcome.expires <= joined):\n                    pending.append(key)\n",
        "outcome.expires <= joined):\n                    pass\n",
    ),
    Mutant(
        "load: joiners get what they cannot read",
        LOAD,
        "                    if not source.usable or source.usable(outcome.value):\n",
        "                    if True:\n",
    ),
    Mutant(
        "load: stored after close", LOAD, "            if kept and not source.closed():\n", "            if kept:\n"
    ),
    Mutant("load: looks again after close", LOAD, "        if source.closed():\n", "        if False:\n"),
    Mutant(
        "stale: who joined a refresh that brought nothing gets nothing",
        LOAD,
        "outcomes | {key: _old(stack, flights[key]) for key in without}",
        "outcomes",
    ),
    Mutant("stale: a failing source is asked without a pause", LOAD, "key not in paused and ", ""),
    # -- no tier can be read -------------------------------------------------------------------------------------------
    Mutant(
        "unread: loads without bound",
        LOAD,
        "    slot = yield from _slot(stack, flights, caller)\n",
        "    slot = None\n",
    ),
    Mutant(
        "unread: a place is never free again", LOAD, "            slot.hand_over(caller.alive)\n", "            pass\n"
    ),
    Mutant(
        "unread: who has the place is not known by it",
        LOAD,
        "mine = [*flights, slot] if slot is not None else flights",
        "mine = flights",
    ),
    Mutant(
        "unread: loads within loads wait for a place",
        FLIGHT,
        "        if not caller.may_wait or working():\n",
        "        if not caller.may_wait:\n",
    ),
    Mutant(
        "unread: the place and the key wait for each other",
        FLIGHT,
        "            if _waits_for(flight, [work], {}):\n",
        "            if False:\n",
    ),
    Mutant(
        "unread: the key and the place wait for each other",
        FLIGHT,
        "                one.work = work\n",
        "                pass\n",
    ),
    Mutant(
        "unread: raised all the same",
        LOAD,
        "                if not source.unread:\n                    raise\n                return",
        "                if True:\n                    raise\n                return",
    ),
    Mutant(
        "unread: loaded though that was not asked for",
        LOAD,
        "                if not source.unread:\n                    raise\n                return",
        "                return",
    ),
    # -- stale ---------------------------------------------------------------------------------------------------------
    Mutant(
        "stale: memory serves on",
        STACK,
        "                until = expires if soft is None else soft  #",
        "                until = expires  #",
    ),
    Mutant("stale: memory as the authority serves on", SHELF, "record.soft / 1000\n", "deadline\n"),
    Mutant(
        "stale: the soft expiry is not stored", LOAD, "one.expires, one.value, one.soft)", "one.expires, one.value)"
    ),
    Mutant(
        "stale: refreshed too early",
        LOAD,
        "if entry.soft is not None and entry.soft <= now:",
        "if entry.soft is not None:",
    ),
    Mutant("stale: refreshed too late", LOAD, "entry.soft <= now:", "entry.soft < now:"),
    Mutant("stale: a copy in a flight has no age (E1)", LOAD, "stack.copy(stale[key], began)", "stale[key]"),
    Mutant(
        "stale: there is no leader at the beginning",
        LOAD,
        "            flight.defer(caller.alive, stale[key], stack.copy(stale[key], began), background.alive)\n",
        "            pass\n",
    ),
    Mutant(
        "stale: a refresh stores over what came meanwhile (R20)",
        LOAD,
        "_Missing({key: entry.stamp for key, entry in seen.items()} if seen else {})",
        "_Missing({}, list(seen or ()))",
    ),
    Mutant(
        "stale: a refresh that fails ends in the thread",
        LOAD,
        "    except Exception as error:  # one line",
        "    except AssertionError as error:  # one line",
    ),
    Mutant("stale: a lost refresh is never missed", LOAD, "            flight.rescue()\n", ""),
    Mutant(
        "stale: who waits is told when the refresh is over",
        FLIGHT,
        "            waiter.wake(Outcome(entry.value, expires=entry.expires))\n",
        "            self.waiters.append(waiter)\n",
    ),
    Mutant(
        "stale: a copy past its expiry is served by its flight",
        LOAD,
        "            if flight.outcome is None and old.live(stack.now_ms()):\n",
        "            if flight.outcome is None:\n",
    ),
    Mutant("flight: a leader that is there is never lost", FLIGHT, " or time.monotonic() - self.since > LONGEST:", ":"),
    Mutant(
        "refresh: without bound (sync)",
        BACKGROUND,
        "if self._stopped or len(_room.jobs) >= REFRESHES:",
        "if self._stopped:",
    ),
    Mutant(
        "refresh: without bound (async)", AIO, "if self._stopped or len(self._tasks) >= REFRESHES:", "if self._stopped:"
    ),
    Mutant(
        "refresh: begun after close (sync)",
        BACKGROUND,
        "if self._stopped or len(_room.jobs) >= REFRESHES:",
        "if len(_room.jobs) >= REFRESHES:",
    ),
    Mutant(
        "refresh: tiers are asked after close",
        BACKGROUND,
        "                if self._stopped:\n                    raise Stopped\n",
        "",
    ),
    Mutant(
        "refresh: close waits for nobody",
        BACKGROUND,
        "            with job.step:\n                pass\n",
        "            pass\n",
    ),
    Mutant(
        "refresh: a room is never free again (sync)",
        BACKGROUND,
        "            self._jobs.discard(job)\n",
        "            pass\n",
    ),
    Mutant(
        "refresh: a room is never free again (async)",
        AIO,
        "        job.ending.add_done_callback(tasks.discard)\n",
        "",
    ),
    Mutant(
        "refresh: a closed loop keeps its rooms",
        AIO,
        "                if task.get_loop().is_closed():  #",
        "                if False:  #",
    ),
    Mutant(
        "refresh: a child counts its parent's",
        LIFECYCLE,
        "        self._engine.forked()\n",
        "",
    ),
    Mutant(
        "refresh: a child counts its parent's (async)",
        LIFECYCLE,
        "            self._async.forked()\n",
        "            pass\n",
    ),
    Mutant("refresh: a job that could not begin is alive", BACKGROUND, "        job.lost = True\n", ""),
    Mutant("refresh: a hung one keeps the interpreter", BACKGROUND, "daemon=True", "daemon=False"),
    Mutant("refresh: is in its callers loader", BACKGROUND, "    context.run(LOADING.set, ())\n", ""),
    Mutant(
        "refresh: aclose does not wait",
        AIO,
        "            await asyncio.wait(ending, timeout=GRACE)\n",
        "            pass\n",
    ),
    Mutant(
        "refresh: aclose leaves threads alone",
        AIO,
        "            await asyncio.to_thread(threads.stop)\n",
        "            pass\n",
    ),
    Mutant(
        "bypass: memory answers",
        "store.py",
        "        value = None if BYPASS.get() else self._hit(key)\n        if value is not None:\n            return value\n        plan =",
        "        value = self._hit(key)\n        if value is not None:\n            return value\n        plan =",
    ),
    Mutant("bypass: tiers are asked", "operations.py", "        if BYPASS.get():\n", "        if False:\n"),
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
        "            if self.alive is not leader or self.outcome is not None:\n                return\n            self._end",
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
    Mutant("flight: no rescue", FLIGHT, "        if not leader() or", "        if"),
    Mutant("flight: rescue from the living", FLIGHT, "        if not leader() or", "        if True or"),
    Mutant(
        "flight: sync code on a loop's thread waits", FLIGHT, "if not caller.may_wait or _waits_for", "if _waits_for"
    ),
    Mutant("flight: loaders wait in a circle", FLIGHT, " or _waits_for(flight, held, known):", ":"),
    Mutant(
        "flight: loaders wait for themselves only",
        FLIGHT,
        "            todo += [one.work for one in work.waits_for if one.work is not None]\n",
        "",
    ),
    Mutant(
        "flight: outer loads are not seen to wait",
        FLIGHT,
        "            for outer in held:  #",
        "            for outer in held[-1:]:  #",
    ),
    Mutant(
        "flight: waiting is held against a loader for ever",
        FLIGHT,
        "                        left = work.waits_for.pop(flight, 1) - 1\n",
        "                        left = 1\n",
    ),
    Mutant(
        "flight: flights are never over",
        FLIGHT,
        "            del table[self.name]\n",
        "            pass\n",
    ),
    Mutant(
        "flight: the flight of another is forgotten",
        FLIGHT,
        "if table.get(self.name) is self:",
        "if self.name in table:",
    ),
    Mutant(
        "flight: a lost lead is not over",
        FLIGHT,
        "                    self._end(LEAD)\n                    return\n",
        "                    self.outcome = LEAD\n                    return\n",
    ),
    Mutant("flight: a child waits for its parent", LIFECYCLE, "        self._stack.flights.forked()\n", ""),
    # -- engines -----------------------------------------------------------------------------------------------------
    Mutant(
        "engine: parallel is one after the other (sync)",
        SYNC,
        '        futures = [pool("tiered", THREADS).submit(self.perform, ask) for ask in effect.asks[1:]]\n',
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
        "            with loading(effect.flights):\n                return effect",
        "            with loading(()):\n                return effect",
    ),
    Mutant(
        "engine: a loader is not known as one (async)",
        AIO,
        "            with loading(effect.flights):\n",
        "            with loading(()):\n",
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
        "        except ValueError:  #",
        "        except KeyError:  #",
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
    Mutant("closed: memory still answers", LIFECYCLE, "        self._hit = self._hits = refuse\n", ""),
    Mutant(
        "closed: other methods still answer",
        OPERATIONS,
        "        if self._closed:\n            refuse(None)\n",
        "        pass\n",
    ),
    Mutant(
        "closed: without repair",
        LIFECYCLE,
        "                self._engine.run(scan.flush(self._stack))\n",
        "                pass\n",
    ),
    Mutant("closed: twice", LIFECYCLE, "        if self._closed:\n            return False\n", ""),
]
