"""The check of class names finds each name that means two things, and nothing else."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from irons.client.api import Api
from irons.client.calling.calls import Calls

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def names() -> Iterator[ModuleType]:
    """The program."""
    spec = importlib.util.spec_from_file_location("check_names", ROOT / "tools/check_names.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_a_name_with_two_definitions_is_found(names: ModuleType, tmp_path: Path) -> None:
    """Classes of all roots are compared, nested ones too; private names are not."""
    for part, text in {
        "core": "class Rule: ...\nclass _Row: ...\n",
        "plugins": "def f():\n    class Rule: ...\n",
        "repl": "class Row: ...\nclass _Row: ...\n",
    }.items():
        (tmp_path / part).mkdir()
        (tmp_path / part / "one.py").write_text(text)
    assert list(names.faults(names.classes(tmp_path), ())) == [
        "Rule is defined 2 times: core/one.py:1, plugins/one.py:2"
    ]


def test_an_exception_allows_two_and_must_be_needed(names: ModuleType) -> None:
    """A third definition of an allowed name is found, and so is an exception for a name that is defined once."""
    place = Path("core/one.py")
    twice = [names.Definition("Rule", place, 1), names.Definition("Rule", place, 2)]
    assert list(names.faults(twice, ["Rule"])) == []
    assert list(names.faults([*twice, *twice[:1]], ["Rule"])) == [
        "Rule is defined 3 times: core/one.py:1, core/one.py:2, core/one.py:1"
    ]
    assert list(names.faults(twice[:1], ["Rule"])) == [
        "Rule is not defined twice; remove it from RIGHT_TWICE"
    ]


def test_every_public_class_has_a_name_of_its_own(names: ModuleType) -> None:
    """No name of the code means two things, but for the exceptions."""
    assert list(names.faults(names.classes())) == []


def test_no_class_of_calls_hides_what_another_defines() -> None:
    """`Api` inherits the calls of each subject: two of one name, also private ones, would be one."""
    subjects = [each for each in Api.__mro__ if issubclass(each, Calls) and each not in (Api, Calls)]
    assert len(subjects) >= 3
    defined = [name for each in subjects for name in vars(each) if not name.startswith("__")]
    assert sorted(defined) == sorted(set(defined))
