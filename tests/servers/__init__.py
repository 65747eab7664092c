"""Real servers on free ports of this machine, for tests, benchmarks and people.

    with tests.servers.start("redis", "--maxmemory", "4mb") as server:   # of your own: kill, pause and restart it
        server.url, server.port, server.pid, server.data, server.log_tail()
        server.kill(); server.restart(); server.restart(empty=True); server.pause(); server.resume()

    tests.servers.shared("postgres").database()      # the session's one: the URL of a new database
    tests.servers.shared("redis").url, tests.servers.namespace()

On the command line: `python -m tests.servers redis postgres`. How each server is run: one file each.
"""

from .kinds import KINDS
from .machine import Missing, StartError, until
from .process import Running, Server, stop_all
from .sharing import namespace, shared, start

__all__ = ["KINDS", "Missing", "Running", "Server", "StartError", "namespace", "shared", "start", "stop_all", "until"]
