"""`NamedTuple` as `typing` has it, for what a command imports: its classes cost a sixth of typing's at start-up.

`typing.NamedTuple` compiles every annotation and a constructor for every class, also for classes that a call never makes one of.
Here annotations stay text, and the constructor is compiled for the first instance. Type checkers see typing's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any
    from typing import NamedTuple as NamedTuple  # noqa: PLC0414 - exported
else:
    from _collections import _tuplegetter as field_of

    class _Record(tuple):
        """What all named tuples share."""

        __slots__ = ()
        _fields = ()
        _field_defaults = {}  # noqa: RUF012 - as typing's

        @classmethod
        def _make(cls, values: Iterable[Any]) -> _Record:
            made = tuple.__new__(cls, values)
            if len(made) != len(cls._fields):
                message = f"{cls.__name__} has {len(cls._fields)} fields, not {len(made)}"
                raise TypeError(message)
            return made

        def _replace(self, /, **changed: Any) -> _Record:
            values = tuple(map(changed.pop, self._fields, self))
            if changed:
                message = f"{type(self).__name__} has no field {', '.join(map(repr, changed))}"
                raise ValueError(message)
            return self._make(values)

        __replace__ = _replace

        def _asdict(self) -> dict[str, Any]:
            return dict(zip(self._fields, self, strict=True))

        def __repr__(self) -> str:
            values = ", ".join(f"{field}={value!r}" for field, value in zip(self._fields, self, strict=True))
            return f"{type(self).__name__}({values})"

        def __getnewargs__(self) -> tuple[Any, ...]:
            return tuple(self)

    class _RecordType(type):
        """Makes a tuple of each class that names `NamedTuple` as its base; what derives from that is an ordinary class."""

        def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> type:
            if not bases:
                return super().__new__(cls, name, bases, namespace)
            fields = tuple(namespace.get("__annotations__", ()))
            defaults = {field: namespace[field] for field in fields if field in namespace}

            def first(kind: type, /, *args: Any, **kwargs: Any) -> _Record:
                made.__new__ = _constructor(made)
                return made.__new__(kind, *args, **kwargs)

            namespace |= {field: field_of(at, field) for at, field in enumerate(fields)}
            namespace |= {
                "__slots__": (),
                "__match_args__": fields,
                "__new__": first,
                "_fields": fields,
                "_field_defaults": defaults,
            }
            made = type(name, (_Record,), namespace)
            return made

    def _constructor(made: type[_Record]) -> Callable[..., _Record]:
        """Compile the `__new__` of a class: one that takes exactly its fields, by position or name."""
        names = ", ".join(made._fields)
        scope = {"_new": tuple.__new__, "__builtins__": {}, "__name__": made.__module__}
        code = f"lambda _kind, {names}: _new(_kind, ({names}{',' if names else ''}))"
        constructor = eval(code, scope)  # noqa: S307 - the names of fields, which are the class's own text
        constructor.__defaults__ = tuple(made._field_defaults.values())
        constructor.__name__ = "__new__"
        constructor.__qualname__ = f"{made.__qualname__}.__new__"
        constructor.__annotations__ = dict(made.__annotations__) if made._fields else {}
        return constructor

    class NamedTuple(metaclass=_RecordType):
        """The base to name: `class Point(NamedTuple): x: int`."""
