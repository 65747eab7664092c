"""stub"""
from typing import NamedTuple
class Row(NamedTuple):
    name: str
    ours: float
    theirs: float
    unit: str
    ratio: float
    bar: str
    ok: bool
    note: str
