"""The texts of the demo: docstrings of the public names in Python's standard library, in a fixed order."""

import importlib
import inspect
from collections.abc import Iterator
from types import ModuleType

MODULES = """
    builtins abc argparse array ast asyncio base64 bisect bz2 calendar cmath codecs collections
    collections.abc colorsys concurrent.futures configparser contextlib contextvars copy csv ctypes
    dataclasses datetime decimal difflib dis email email.message email.policy email.utils enum errno
    faulthandler fileinput fnmatch fractions ftplib functools gc getpass gettext glob graphlib gzip
    hashlib heapq hmac html html.parser http http.client http.cookiejar http.cookies http.server imaplib
    importlib importlib.metadata importlib.resources inspect io ipaddress itertools json keyword linecache
    locale logging logging.config logging.handlers lzma mailbox math mimetypes mmap multiprocessing.pool
    multiprocessing.shared_memory numbers operator optparse os os.path pathlib pdb pickle pickletools
    platform plistlib poplib pprint profile pstats queue quopri random re reprlib sched secrets selectors
    shelve shlex shutil signal smtplib socket socketserver sqlite3 ssl stat statistics string struct
    subprocess symtable sys sysconfig tarfile tempfile textwrap threading time timeit token tokenize
    tomllib trace traceback tracemalloc types typing unicodedata unittest unittest.mock urllib.error
    urllib.parse urllib.request urllib.robotparser uuid warnings wave weakref webbrowser
    wsgiref.simple_server wsgiref.util xml.dom.minidom xml.etree.ElementTree xml.sax xmlrpc.client
    xmlrpc.server zipapp zipfile zlib zoneinfo
"""
SHORTEST = 30  # characters: what is shorter says too little to be found by its meaning


def docstrings() -> dict[str, str]:
    """Public names and their docstrings, each docstring under its first name; absent modules are left out."""
    names: dict[str, str] = {}
    for module_name in MODULES.split():
        try:
            module = importlib.import_module(module_name)
        except ImportError:
            continue
        for name, thing in _public(module):
            doc = getattr(thing, "__doc__", None)
            text = inspect.cleandoc(doc) if isinstance(doc, str) else ""
            if len(text) >= SHORTEST:
                names.setdefault(text, name)
    return {name: text for text, name in names.items()}


def _public(module: ModuleType) -> Iterator[tuple[str, object]]:
    """The module, its public functions and classes, and the public members the classes define themselves."""
    yield module.__name__, module
    for name in _exported(module):
        thing = getattr(module, name, None)
        if inspect.isclass(thing):
            yield f"{module.__name__}.{name}", thing
            members = [member for member in vars(thing).items() if not member[0].startswith("_")]
            yield from ((f"{module.__name__}.{name}.{member}", value) for member, value in members)
        elif inspect.isroutine(thing):
            yield f"{module.__name__}.{name}", thing


def _exported(module: ModuleType) -> list[str]:
    public = [name for name in getattr(module, "__all__", sorted(vars(module))) if not name.startswith("_")]
    if hasattr(module, "__all__"):
        return public
    home = (module.__name__, f"_{module.__name__}")  # the second is where a module's C half lives
    return [name for name in public if getattr(getattr(module, name), "__module__", None) in home]
