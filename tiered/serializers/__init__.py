"""Values of other types than bytes: `store.typed(Json())` is a store of what JSON can say.

| | reads | also takes for its own |
|---|---|---|
| `Msgpack` | msgpack, begins with 0x91 | other msgpack that is an array of one |
| `Document` | the same, of one Document | |
| `Vector` | its header, begins with 0xF6 | |
| `Json` | JSON in UTF-8 | text of `Str` that happens to be JSON |
| `Str` | UTF-8 | what `Json` wrote |

Everything else that one of them finds is `CorruptEntry`: no UTF-8 begins with 0x91 or 0xF6. Json and Str add no mark
of their own, so that any program reads them.
"""

from ._base import Serializer
from .document import Document
from .packed import Msgpack
from .text import Json, Str
from .vector import Vector

__all__ = ["Document", "Json", "Msgpack", "Serializer", "Str", "Vector"]
