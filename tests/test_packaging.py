"""The distribution: what is in the wheel and the sdist, and that a plugin of another's fits."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

import irons
from irons.testing import FakeApi

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[1]
PACKAGES = {"irons", "irons_policy", "irons_local", "irons_plugins", "irons_repl"}


def python(*words: object, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    """Run this interpreter and return what it prints."""
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        env=env,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def quiet() -> dict[str, str]:
    """This environment without what measures coverage: packages built and installed are no part of the tree."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("COVERAGE", "PYTHONPATH"))}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the repository tracks, or would."""
    copy = tmp_path_factory.mktemp("source")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def built(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that the wheel and the sdist were built into."""
    place = tmp_path_factory.mktemp("dist")
    python("-m", "build", "--no-isolation", "--outdir", place, source, env=quiet())
    return place


def the_one(place: Path, ending: str) -> Path:
    """The file with this ending."""
    [found] = place.glob(f"*{ending}")
    return found


def test_the_wheel_holds_the_three_packages_and_nothing_else(built: Path) -> None:
    """Every module of the three roots is in the wheel, typed, and no test, bench or document."""
    with zipfile.ZipFile(the_one(built, ".whl")) as wheel:
        names = {name for name in wheel.namelist() if not name.endswith("/")}
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == PACKAGES
    roots = (ROOT / "core", ROOT / "plugins", ROOT / "repl")
    for root in roots:
        for path in root.rglob("*.py"):
            assert str(path.relative_to(root)) in names
    assert {f"{package}/py.typed" for package in PACKAGES} <= names


def test_the_sdist_builds_the_same_wheel(built: Path, tmp_path: Path) -> None:
    """The sdist has all that the wheel is made of: a wheel built from it holds the same files."""
    with tarfile.open(the_one(built, ".tar.gz")) as sdist:
        sdist.extractall(tmp_path, filter="data")
    [unpacked] = tmp_path.iterdir()
    python("-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path / "again", unpacked, env=quiet())
    with (
        zipfile.ZipFile(the_one(built, ".whl")) as first,
        zipfile.ZipFile(the_one(tmp_path / "again", ".whl")) as second,
    ):
        assert set(first.namelist()) == set(second.namelist())
    assert (unpacked / "LICENSE").is_file()
    assert not (unpacked / ".venv").exists()


def test_versions_agree(built: Path) -> None:
    """The package, its metadata, the file names and the changelog tell one version."""
    assert version("irons") == irons.__version__
    assert the_one(built, ".whl").name.split("-")[1] == irons.__version__
    assert f"## {irons.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def _bare_environment(place: Path, wheel: Path) -> Path:
    """A virtual environment with the wheel installed; what it depends on is lent by a path, since tests go without a network."""
    python("-m", "venv", "--without-pip", place)
    site = next((place / "lib").glob("python*/site-packages"))
    pip = ("-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps", "--no-index")
    python(*pip, "--target", site, wheel, env=quiet())
    lent = [path for path in map(Path, sys.path) if path.name == "site-packages"]
    for number, path in enumerate(lent):
        links = site / f"lent{number}"
        links.mkdir()
        for entry in path.iterdir():
            if not entry.name.startswith(("irons", "_irons", "__editable__")) and entry.suffix != ".pth":
                (links / entry.name).symlink_to(entry)
        (site / f"lent{number}.pth").write_text(f"{links}\n")
    return place / "bin" / "python"


def test_the_wheel_runs_in_a_bare_environment(built: Path, tmp_path: Path) -> None:
    """Installed from the wheel alone, far from the repository, irons tells its version, its help and its plugins."""
    interpreter = _bare_environment(tmp_path / "venv", the_one(built, ".whl"))
    env = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "IRONS_PLUGINS": ""}

    def run(*words: str) -> str:
        return subprocess.run(
            [interpreter, "-P", "-m", "irons", *words],
            env=env,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    assert run("--version") == f"irons {irons.__version__}\n"
    text = run("--help")
    for name in ("create", "egress allow", "local up", "shell"):
        assert f"  {name} " in text
    assert "failed" not in run("plugins")
    where = subprocess.run(
        [
            interpreter,
            "-c",
            "import irons, irons_policy, irons_local, irons_plugins, irons_repl; print(irons.__file__)",
        ],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert str(tmp_path / "venv") in where


@pytest.fixture(scope="module")
def third_party(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugin of tests/third_party, installed by pip into a directory of its own."""
    place = tmp_path_factory.mktemp("third_party")
    source = place / "source"
    shutil.copytree(ROOT / "tests" / "third_party", source)
    pip = ("-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps", "--no-index")
    python(*pip, "--no-build-isolation", "--target", place / "site", source, env=quiet())
    return place / "site"


def test_a_strangers_plugin_is_like_a_built_in(
    third_party: Path, irons_env: dict[str, str], fake_api: FakeApi
) -> None:
    """Its command is in the help, runs, completes, is listed, and its backend answers."""
    fake_api.add("one")
    fake_api.add("two", "stopped")
    port = fake_api.url.rpartition(":")[2]
    del irons_env["IRONS_PLUGINS"]
    measured = {key: value for key, value in os.environ.items() if key.startswith("COVERAGE")}
    env = {**irons_env, **measured, "PYTHONPATH": str(third_party), "IRONS_API_URL": f"greet:{port}"}

    def irons_says(*words: str) -> str:
        return python("-m", "irons", *words, env=env)

    assert "\n  greet " in irons_says("--help")
    assert irons_says("greet", "--help").startswith(
        "usage: irons greet [--loud] NAMES...\n\nGreet sandboxes.\n"
    )
    assert irons_says("greet", "one", "two", "--loud") == "one\tHELLO, READY ONE\ntwo\tHELLO, STOPPED TWO\n"
    assert irons_says("greet", "one", "-o", "jsonl") == '{"name": "one", "words": "hello, ready one"}\n'
    assert irons_says("__complete", "gre") == "greet\tGreet sandboxes.\n"
    irons_says("list")
    assert irons_says("__complete", "greet", "t") == "two\tstopped\n"
    assert "--loud\tShout.\n" in irons_says("__complete", "greet", "--l")
    assert "greet\tirons-greet\t0.3\tirons_backend, irons_commands\tok" in irons_says("plugins")
    assert irons_says("greet", "one", "-o", "csv").splitlines() == ["name,words", 'one,"hello, ready one"']
    assert irons_says("config", "set", "plugins.desk.seats", "5") == ""
    assert "plugins.desk.seats\t5\tconfig\n" in irons_says("config", "show")
    assert "red\ta label for 2\n" in irons_says("__complete", "desk", "")
    assert "greet" not in irons_says("--no-plugins", "--help")
    env["IRONS_PLUGINS"] = ""
    assert "greet" not in irons_says("--help")
