"""What is different about LangChain's LocalFileStore, where each key is the path of a file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ..errors import InvalidKey

_PATH = re.compile(r"(?!\.\.?(?:/|$))[A-Za-z0-9_.\-]+(?:/(?!\.\.?(?:/|$))[A-Za-z0-9_.\-]+)*", re.ASCII)
"""What it takes, without the spellings that name one file twice."""

_PART = 255
"""Bytes that the name of a file or folder may have."""


def is_files(store: Any) -> bool:
    return any(base.__name__ == "LocalFileStore" for base in type(store).__mro__)


def is_path(key: str) -> bool:
    """Whether it can be a key."""
    return _PATH.fullmatch(key) is not None and max(map(len, key.split("/"))) <= _PART


def check_paths(space: str, keys: Sequence[str]) -> None:
    """Raises InvalidKey for what the store would refuse half-way."""
    if space:
        raise InvalidKey(
            f"LocalFileStore has no place for the namespace {space!r:.40}: its keys take no ':', so use it "
            'with namespace="", in a folder of its own'
        )
    for key in keys:
        if not is_path(key):
            raise InvalidKey(
                "LocalFileStore takes relative paths of letters, digits, _ . - and / only, "
                f"of up to {_PART} bytes between two /",
                key=key,
            )


def call_files(store: Any, method: str, argument: Any) -> Any:
    """Call `method`. A folder is no value: it is read as absent and stays when it is deleted, its files with it."""
    try:
        return getattr(store, method)(argument)
    except (IsADirectoryError, PermissionError):  # which of them depends on the system
        folders = {name for name in argument if (store.root_path / name).is_dir()} if method != "mset" else set()
        if not folders:
            raise
        names = [name for name in argument if name not in folders]
        answer = getattr(store, method)(names)
        if method == "mdelete":
            return None
        values = dict(zip(names, answer, strict=True))
        return [values.get(name) for name in argument]
