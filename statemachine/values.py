"""Values: classes whose objects are never changed once they are made.

``attrs.frozen`` sees to that while the program runs, too, and therefore sets each field in a roundabout way, which is
most of what it takes to make an object. Messages, events and the like are made in every turn of a server, so for them
the type checker alone refuses to set a field. To it, ``value`` is ``attrs.frozen``; when the program runs, it makes the
same class without the guard: compared and hashed by its fields.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from attrs import frozen as value
else:

    def value(cls: type | None = None, **options: Any) -> Any:
        """Decorate a class as ``attrs.frozen`` does; for options see there."""
        return attrs.define(cls, unsafe_hash=options.get("eq", True), **options)


__all__ = ["value"]
