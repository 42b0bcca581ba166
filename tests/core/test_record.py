"""Named tuples of `irons.record` behave as typing's do."""

from __future__ import annotations

import ast
import copy
import inspect
import pickle
from pathlib import Path

import pytest

import irons
import irons_plugins
import irons_repl
from irons.record import NamedTuple

PACKAGES = (irons, irons_plugins, irons_repl)


class Place(NamedTuple):
    """A host and a port."""

    host: str
    port: int = 443
    names: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The two as one."""
        return f"{self.host}:{self.port}"


class Named(Place):
    """One with more to say."""

    def __str__(self) -> str:
        return f"<{self.text}>"


class Empty(NamedTuple):
    """One without fields."""


def test_it_is_made_by_position_and_by_name() -> None:
    """Fields are given in their order or by name, and have their defaults."""
    assert Place("a", 1, ("b",)) == ("a", 1, ("b",))
    assert Place(port=1, host="a") == Place("a", 1)
    assert (Place("a").host, Place("a").port, Place("a").names) == ("a", 443, ())
    assert Empty() == ()


@pytest.mark.parametrize(("given", "named"), [((), {}), (("a", 1, (), 2), {}), (("a",), {"nothing": 1})])
def test_a_wrong_call_is_refused(given: tuple[object, ...], named: dict[str, object]) -> None:
    """A field that is missing, too many of them and one that there is not are a TypeError, also for the first instance."""

    class Fresh(NamedTuple):
        host: str
        port: int = 443
        names: tuple[str, ...] = ()

    with pytest.raises(TypeError):
        Fresh(*given, **named)  # type: ignore[arg-type]


def test_what_named_tuples_have() -> None:
    """Fields, defaults, a changed copy, a mapping and a text are those of typing's."""
    place = Place("a", 1)
    assert Place._fields == Place.__match_args__ == ("host", "port", "names")
    assert Place._field_defaults == {"port": 443, "names": ()}
    assert place._replace(port=2) == Place("a", 2)
    assert place._asdict() == {"host": "a", "port": 1, "names": ()}
    assert repr(place) == "Place(host='a', port=1, names=())"
    assert Place._make(["a", 1, ()]) == place
    with pytest.raises(ValueError, match="no field 'ports'"):
        place._replace(ports=2)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="has 3 fields, not 1"):
        Place._make(["a"])


def test_it_cannot_be_changed() -> None:
    """A field cannot be set, and no other attribute either."""
    place = Place("a")
    for name in ("host", "other"):
        with pytest.raises(AttributeError):
            setattr(place, name, "b")


def test_a_derived_class_is_an_ordinary_one() -> None:
    """A class that derives from one is made by the same constructor, and changed copies stay of its kind."""
    named = Named("a", 1)
    assert isinstance(named, Place)
    assert str(named) == "<a:1>"
    assert type(named._replace(port=2)) is Named


def test_it_is_matched_copied_and_pickled() -> None:
    """Patterns match it by position; a copy and what was pickled are equal and of its class."""
    match Place("a", 1):
        case Place(host, port):
            assert (host, port) == ("a", 1)
    for same in (copy.copy(Named("a")), copy.deepcopy(Named("a")), pickle.loads(pickle.dumps(Named("a")))):
        assert same == Named("a")
        assert type(same) is Named


def test_its_signature_tells_its_fields() -> None:
    """Once there was an instance, tools see what its constructor takes."""
    Place("a")
    assert list(inspect.signature(Place).parameters) == ["host", "port", "names"]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_no_command_pays_for_typings(package: object) -> None:
    """No module that a command may import makes a class of `typing.NamedTuple`, which costs six times as much at each start."""
    own = Path(irons.__file__).parent / "record.py"
    (root,) = package.__path__  # type: ignore[attr-defined]
    texts = {path: path.read_text("utf-8") for path in Path(root).rglob("*.py") if path != own}
    assert texts
    # To parse all of them takes as long as a hundred tests.
    modules = {path: ast.parse(text) for path, text in texts.items() if "NamedTuple" in text}
    found = [
        str(path.relative_to(root))
        for path, tree in modules.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and node.module == "typing"
        and any(name.name == "NamedTuple" for name in node.names)
    ]
    assert found == []
