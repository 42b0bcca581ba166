"""`irons plugins new` and `irons plugins check`: a package that works, and what is found where one does not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from irons.testing import Runner

pytestmark = pytest.mark.process


@pytest.fixture(autouse=True)
def clean_imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leaves no module of a package that a test wrote, nor its place on the path."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("irons_wave", "irons_plugin_")):
            del sys.modules[name]


@pytest.fixture
def package(run_irons: Runner, tmp_path: Path) -> Path:
    """A package as `plugins new` writes it."""
    done = run_irons("plugins", "new", "wave-hand", "--into", str(tmp_path)).ok()
    assert done.out == f"{tmp_path}/irons-wave-hand\n"
    assert "pip install -e" in done.err
    return tmp_path / "irons-wave-hand"


def checks(runner: Runner, path: Path) -> tuple[int, dict[str, tuple[bool, str]]]:
    """The exit code, and by check whether it passed and what was found."""
    done = runner("plugins", "check", str(path), "-o", "json")
    return done.code, {row["check"]: (row["ok"], row["what"]) for row in done.json()}


def test_a_new_package_passes_what_a_release_should(run_irons: Runner, package: Path) -> None:
    """It loads, its texts are whole, and its own tests pass; all files have the name in its three spellings."""
    code, found = checks(run_irons, package)
    assert code == 0, found
    assert {check for check, (ok, _) in found.items() if ok} == {
        "package",
        "dependency",
        "wave-hand: loads",
        "wave-hand: hooks",
        "wave-hand: names",
        "wave-hand: help",
        "wave-hand: functions",
        "tests",
    }
    assert found["tests"][1].startswith("4 passed")
    assert found["wave-hand: hooks"][1] == "irons_commands 2, irons_completions 1, irons_settings 1"
    text = "".join(
        file.read_text() for file in package.rglob("*") if file.is_file() and "__pycache__" not in file.parts
    )
    assert "$" not in text
    assert (package / "src" / "irons_wave_hand" / "py.typed").exists()


def test_what_a_release_should_not_have_is_found(run_irons: Runner, package: Path) -> None:
    """Each check names what is wrong: the dependency, names, texts, functions, and tests that fail."""
    plugin = package / "src" / "irons_wave_hand" / "__init__.py"
    text = plugin.read_text()
    plugin.write_text(
        text.replace("Greet sandboxes.", "greets")
        .replace("handlers:greet", "handlers:great")
        .replace("wave-hand-tone", "tone")
    )
    project = package / "pyproject.toml"
    project.write_text(project.read_text().replace('"irons>=0.3,<0.4"', '"irons"'))
    code, found = checks(run_irons, package)
    assert code == 1
    assert {check for check, (ok, _) in found.items() if not ok} == {
        "dependency",
        "wave-hand: names",
        "wave-hand: help",
        "wave-hand: functions",
        "tests",
    }
    assert found["wave-hand: names"][1] == "kind 'tone' does not begin with 'wave-hand'"
    assert "'greets' is not a sentence" in found["wave-hand: help"][1]
    assert "handlers:great' names nothing" in found["wave-hand: functions"][1]


@pytest.mark.parametrize(
    ("text", "check", "what"),
    [
        ("import gone_for_good\n", "wave: loads", "ModuleNotFoundError"),
        ("irons_needs = {'irons_event': 9}\n", "wave: loads", "it needs version 9 of irons_event"),
        ("x = 1\n", "wave: hooks", "it implements no hook"),
    ],
)
def test_a_single_file_is_checked(
    run_irons: Runner, tmp_path: Path, text: str, check: str, what: str
) -> None:
    """A file is loaded as from the person's directory; one that can't be, or does nothing, does not pass."""
    file = tmp_path / "wave.py"
    file.write_text(text)
    file.chmod(0o600)
    code, found = checks(run_irons, file)
    assert code == 1
    assert found[check][0] is False
    assert what in found[check][1]


def test_there_must_be_something_to_check(run_irons: Runner, tmp_path: Path) -> None:
    """A place without a package is an error with exit code 3."""
    found = run_irons("plugins", "check", str(tmp_path))
    assert found.code == 3
    assert "has no pyproject.toml" in found.err


@pytest.mark.parametrize("name", ["Wave", "../wave", "wave--hand", "3d", "status", "egress", "w" * 41, ""])
def test_a_name_that_cannot_be_one_is_refused(run_irons: Runner, tmp_path: Path, name: str) -> None:
    """Names of paths, commands that exist and odd spellings write nothing."""
    assert run_irons("plugins", "new", "--into", str(tmp_path / "here"), "--", name).code == 2
    assert not (tmp_path / "here").exists()


def test_a_directory_that_is_there_is_not_changed(run_irons: Runner, package: Path) -> None:
    """A second package of the name is refused with exit code 5."""
    (package / "README.md").write_text("mine")
    assert run_irons("plugins", "new", "irons-wave-hand", "--into", str(package.parent)).code == 5
    assert (package / "README.md").read_text() == "mine"


def test_the_first_plugin_of_the_handbook_passes(run_irons: Runner, tmp_path: Path) -> None:
    """The file that docs/plugins.md begins with is found in order."""
    text = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text()
    file = tmp_path / "greet.py"
    file.write_text(text.partition("## One file")[2].partition("```python\n")[2].partition("```")[0])
    code, found = checks(run_irons, file)
    assert {name: what for name, (ok, what) in found.items() if not ok} == {}
    assert code == 0
