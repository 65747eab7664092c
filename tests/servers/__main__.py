"""`python -m tests.servers redis postgres`: starts them, prints NAME_URL=url for each, stops them at Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import sys
from contextlib import ExitStack
from types import FrameType

from . import machine
from .kinds import KINDS, make
from .machine import Missing, StartError


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.servers", description=__doc__)
    parser.add_argument("kind", nargs="+", choices=list(KINDS), help="servers to start")
    parser.add_argument("--durable", action="store_true", help="flush before each answer, as in production")
    given = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    with ExitStack() as running:
        running.callback(machine.remove_root)
        try:
            for kind in dict.fromkeys(given.kind):
                server = running.enter_context(make(kind, durable=given.durable))
                sys.stdout.write(f"{kind.upper().replace('-', '_')}_URL={server.url}\n")
                sys.stdout.flush()
            while True:
                signal.pause()
        except (Missing, StartError) as error:
            sys.stderr.write(f"{error}\n")
            return 1
        except KeyboardInterrupt:
            return 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)  # once is enough: the servers are being stopped
    raise KeyboardInterrupt


if __name__ == "__main__":
    raise SystemExit(main())
