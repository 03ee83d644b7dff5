"""For the reference pages: shows functions of which a stub has nothing but overloads.

griffe knows overloads as a part of the implementation that follows them, which a stub of a
native class does not have, and drops them. The first one, which has the docstring, stands in
for the implementation.
"""

from __future__ import annotations

from typing import Any

from griffe import Class, Extension, Function

__all__ = ["StubOverloads"]


class StubOverloads(Extension):
    """Makes a function of each name that has overloads only."""

    def on_class_members(self, *, cls: Class, **_: Any) -> None:
        """Called when all of a class was read."""
        for name, overloads in list(cls.overloads.items()):
            if not overloads or name in cls.members:
                continue
            first = overloads[0]
            function = Function(
                name,
                lineno=first.lineno,
                endlineno=first.endlineno,
                parameters=first.parameters,
                returns=first.returns,
                docstring=first.docstring,
            )
            function.overloads = overloads
            cls.set_member(name, function)
            del cls.overloads[name]
        cls.members = dict(sorted(cls.members.items(), key=lambda item: item[1].lineno or 0))
