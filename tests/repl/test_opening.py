"""What the prompt imports for its first line, and what comes late."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from types import ModuleType

import pytest
import wcwidth

from irons_repl.late_modules import put_off
from irons_repl.opening import NARROW

Package = tuple[str, Path]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Package]:
    """A package that writes a line for each time that its code runs, with a module in it."""
    name = f"late_{tmp_path.name}".replace("-", "_")
    folder = tmp_path / name
    folder.mkdir()
    note = dedent(f"""\
        with open({str(tmp_path / "ran")!r}, "a") as file:
            print(__name__, file=file)
        """)
    (folder / "__init__.py").write_text(f"{note}VALUE = 1\n")
    (folder / "below.py").write_text(f"{note}VALUE = 2\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield name, tmp_path / "ran"
    for each in (name, f"{name}.below"):
        sys.modules.pop(each, None)


def test_a_late_module_runs_at_the_first_thing_that_is_needed_of_it(package: Package) -> None:
    """Importing it, or a module below it, runs nothing of it; its first value does, once."""
    name, ran = package
    late = put_off(name)
    assert late is not None
    assert late is __import__(name)
    below = __import__(f"{name}.below", fromlist=["VALUE"])
    assert below.VALUE == 2
    assert late.below is below
    assert ran.read_text().split() == [f"{name}.below"]
    assert late.VALUE == 1
    assert late.VALUE == 1
    assert ran.read_text().split() == [f"{name}.below", name]
    with pytest.raises(AttributeError, match="nothing_such"):
        _ = late.nothing_such
    assert ran.read_text().split() == [f"{name}.below", name]


def test_a_late_module_that_is_no_package_is_imported_from(package: Package) -> None:
    """`from module import VALUE` gets the value; that import asks whether it is a package does not run it."""
    name, ran = package
    late = put_off(f"{name}.below")
    assert late is not None
    assert not hasattr(late, "__path__")
    assert not ran.exists()
    assert __import__(f"{name}.below", fromlist=["VALUE"]).VALUE == 2


def test_what_is_imported_already_is_not_put_off(package: Package) -> None:
    """A module that is there, and one that can't be found, are left as they are."""
    name, _ = package
    there = __import__(name)
    assert put_off(name) is None
    assert put_off(f"{name}.missing") is None
    assert sys.modules[name] is there


def test_what_would_fail_is_not_put_off(package: Package) -> None:
    """Where what a module needs can't be found, its import fails at once, as whoever imports it expects."""
    name, _ = package
    assert put_off(name, "late_and_missing") is None
    assert name not in sys.modules
    assert put_off(name, "sys") is not None


def test_a_late_module_that_fails_is_tried_again(package: Package) -> None:
    """An error of its code reaches whoever needed it, each time."""
    name, ran = package
    late = put_off(name)
    assert late is not None
    ran.mkdir()
    for _ in range(2):
        with pytest.raises(IsADirectoryError):
            _ = late.VALUE
    ran.rmdir()
    assert late.VALUE == 1


def test_two_threads_need_a_late_module_at_once(package: Package, tmp_path: Path) -> None:
    """The second one waits until the first has run all of it."""
    name, ran = package
    gate = threading.Event()
    began = threading.Event()
    stand_in = ModuleType("gate_of_the_test")
    vars(stand_in).update(gate=gate, began=began)
    sys.modules["gate_of_the_test"] = stand_in
    (tmp_path / name / "__init__.py").write_text(
        "import gate_of_the_test as g\ng.began.set()\nassert g.gate.wait(60)\nVALUE = 1\n"
    )
    late = put_off(name)
    got: list[int] = []
    threads = [threading.Thread(target=lambda: got.append(late.VALUE)) for _ in range(2)]  # type: ignore[union-attr]
    try:
        threads[0].start()
        assert began.wait(60)
        threads[1].start()
        assert got == []
        gate.set()
        for thread in threads:
            thread.join(60)
    finally:
        gate.set()
        del sys.modules["gate_of_the_test"]
    assert got == [1, 1]
    assert not ran.exists()


def test_narrow_characters_have_one_column() -> None:
    """What is measured without the tables has the width that these give it."""
    assert {wcwidth.wcwidth(character) for character in NARROW} == {1}


def _in_a_new_interpreter(code: str) -> str:
    # What measures coverage imports modules of its own.
    env = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE")}
    argv = [sys.executable, "-c", dedent(code)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.process
def test_the_first_prompt_imports_no_dialogs_digraphs_tables_or_openssl() -> None:
    """What prompt_toolkit imports beyond what a line needs is not run."""
    found = _in_a_new_interpreter("""\
        import sys
        from irons_repl.opening import import_prompt_toolkit
        import_prompt_toolkit()
        import irons_repl.prompt
        print(*sys.modules)
        """).split()
    assert "prompt_toolkit.shortcuts.prompt" in found
    late = {
        "_bz2",
        "_ssl",
        "dataclasses",
        "prompt_toolkit.key_binding.digraphs",
        "prompt_toolkit.shortcuts.dialogs",
        "prompt_toolkit.shortcuts.progress_bar",
        "wcwidth.table_grapheme",
        "wcwidth.table_wide",
        "xml.dom.xmlbuilder",
    }
    assert not late & set(found)


@pytest.mark.process
def test_whoever_imports_prompt_toolkit_later_gets_all_of_it() -> None:
    """In the prompt's process a plugin finds every name of these packages, and the same kinds of things, as in any other."""
    _in_a_new_interpreter("""\
        import subprocess, sys
        LOOK = '''
        import asyncio, asyncio.sslproto, importlib, ssl, sys, xml.dom.minidom
        assert xml.dom.minidom.parseString('<a/>').documentElement.tagName == 'a'
        NAMES = ("prompt_toolkit", "prompt_toolkit.shortcuts", "prompt_toolkit.widgets", "wcwidth", "ssl", "asyncio.sslproto",
                 "prompt_toolkit.key_binding.bindings.vi", "prompt_toolkit.utils", "bz2", "lzma", "xml.dom.minidom")
        for name in NAMES:
            module = importlib.import_module(name)
            for each in sorted(getattr(module, "__all__", None) or vars(module)):
                if not each.startswith("__"):
                    value = getattr(module, each)
                    print(name, each, type(value).__name__, getattr(value, "__module__", ""))
        '''
        LATE = "from irons_repl.opening import import_prompt_toolkit; import_prompt_toolkit()"
        def looked(first):
            return subprocess.run([sys.executable, "-c", first + LOOK], capture_output=True, text=True, check=True).stdout
        late, plain = set(looked(LATE).splitlines()), set(looked("").splitlines())
        # What was imported meanwhile is a matter of order: modules may be there as attributes that are not otherwise.
        missing = {line for line in plain - late if " module " not in line}
        assert missing <= {"prompt_toolkit.utils wcwidth function wcwidth._wcwidth"}, missing
        """)


@pytest.mark.process
def test_a_python_without_compression_and_openssl_does_without_them() -> None:
    """What imports these modules hears at once that they are not there, and not once it needs them."""
    said = _in_a_new_interpreter("""\
        import sys
        sys.modules.update(dict.fromkeys(("_bz2", "_lzma", "_ssl")))
        from irons_repl.opening import import_prompt_toolkit
        import_prompt_toolkit()
        import asyncio.sslproto, zipfile
        print(zipfile.bz2, zipfile.lzma, asyncio.sslproto.ssl)
        """)
    assert said.split() == ["None", "None", "None"]


@pytest.mark.process
def test_plugins_connect_by_tls_in_the_process_of_the_prompt() -> None:
    """`asyncio` finds OpenSSL's library once a connection needs it, and measures text once it is not ASCII."""
    said = _in_a_new_interpreter("""\
        from irons_repl.opening import import_prompt_toolkit
        import_prompt_toolkit()
        import asyncio
        from prompt_toolkit.shortcuts import prompt
        from prompt_toolkit.utils import get_cwidth
        assert callable(prompt)
        print(get_cwidth("irons> 日本"))

        async def talk():
            async def plain(reader, writer):
                writer.write(b"no TLS at all\\n")
                await reader.read()
                writer.close()
            server = await asyncio.start_server(plain, "127.0.0.1", 0)
            try:
                await asyncio.open_connection(*server.sockets[0].getsockname(), ssl=True)
            except OSError as error:
                print(type(error).__name__)
            server.close()
        asyncio.run(talk())
        """)
    assert said.split() == ["11", "SSLError"]
