"""Policies: frozen values with pure functions, one file each."""

from .compression import Zstd
from .retry import Retry
from .ttl import TTL
from .write import WriteAround, WriteThrough

__all__ = ["TTL", "Retry", "WriteAround", "WriteThrough", "Zstd"]
