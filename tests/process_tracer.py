"""Coverage of one process, begun as its interpreter starts: `tests/covered.py` installs this in the virtual environment.

coverage's own start imports all of it, and its end walks through all sources and writes a database: a quarter of a
second for each of the many thousand processes of the tests. This uses its C tracer alone, and leaves what the process ran
as a piece for `tests/covered.py` to combine. Nothing is imported here that an interpreter does not have anyway, but for
threading.
"""

from __future__ import annotations

import _imp
import _signal  # type: ignore[import-not-found]
import atexit
import marshal
import os
import sys
import threading
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import NoReturn

VARIABLE = "COVERAGE_PIECES"
"""The variable of the environment that names where pieces go; irons hands on what begins with COVERAGE."""


def start(library: str, roots: tuple[str, ...]) -> None:
    """Trace this process from here on, however it ends, and its forks.

    Args:
        library: the path of coverage's C tracer.
        roots: what the paths of the sources that count begin with.
    """
    external: Any = sys.modules["_frozen_importlib_external"]
    bootstrap: Any = sys.modules["_frozen_importlib"]
    loader = external.ExtensionFileLoader("coverage.tracer", library)
    made = _imp.create_dynamic(bootstrap.ModuleSpec("coverage.tracer", loader, origin=library))
    loader.exec_module(made)
    Process(made, os.environ[VARIABLE], roots).begin()


class Process:
    """What one process runs of the sources.

    Args:
        tracer: coverage's C tracer, a module.
        place: where pieces go.
        roots: what the paths of the sources begin with.
    """

    def __init__(self, tracer: Any, place: str, roots: tuple[str, ...]) -> None:
        self._tracer = tracer
        self._place = place
        self._roots = roots
        self._data: dict[str, set[int]] = {}
        self._judged: dict[str, Any] = {}
        self._threads: list[Any] = []
        self._saved = 0

    def begin(self) -> None:
        """Trace this thread and those to come, and save at each end that a process can have."""
        atexit.register(self._end)
        os.register_at_fork(after_in_child=self._forget)
        self._save_before_exec()
        if _signal.getsignal(_signal.SIGTERM) == _signal.SIG_DFL:
            _signal.signal(_signal.SIGTERM, self._terminated)
        threading.settrace(self._thread_begins)
        self._trace_thread()

    def _trace_thread(self) -> Any:
        thread = self._tracer.CTracer()
        thread.data = self._data
        # Under the interpreter's lock none is needed; what is called is to run no code of Python.
        thread.lock_data = thread.unlock_data = bool
        thread.trace_arcs = True
        thread.should_trace = self._judge
        thread.should_trace_cache = self._judged
        thread.warn = thread.disable_plugin = lambda *_, **__: None
        thread.check_include = lambda *_: True
        thread.concur_id_func = thread.should_start_context = thread.switch_context = None
        thread.file_tracers = {}
        self._threads.append(thread)
        return thread.start()

    def _thread_begins(self, frame: FrameType, event: str, argument: Any) -> Any:
        """Take the place of this function in a new thread; its first event counts too."""
        sys.settrace(None)
        trace = self._trace_thread()
        return trace(frame, event, argument) if trace else None

    def _judge(self, path: str, frame: FrameType) -> Any:
        verdict = self._tracer.CFileDisposition()
        verdict.original_filename = verdict.canonical_filename = verdict.source_filename = path
        verdict.trace = path.startswith(self._roots)
        verdict.reason = ""
        verdict.file_tracer = None
        verdict.has_dynamic_filename = False
        return verdict

    def _save_before_exec(self) -> None:
        execv, execve, leave = os.execv, os.execve, os._exit

        def saved_execv(path: Any, argv: Any, /) -> NoReturn:
            self._save()
            execv(path, argv)

        def saved_execve(path: Any, argv: Any, env: Any) -> NoReturn:
            self._save()
            execve(path, argv, {**env, VARIABLE: self._place})

        def saved_exit(status: int) -> NoReturn:
            self._save()
            leave(status)

        os.execv, os.execve, os._exit = saved_execv, saved_execve, saved_exit

    def _forget(self) -> None:
        """In a fork, keep the sets that running functions add to, without what the parent has in them."""
        for pairs in self._data.values():
            pairs.clear()

    def _terminated(self, number: int, frame: FrameType | None) -> None:
        self._save()
        _signal.signal(number, _signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def _end(self) -> None:
        threading.settrace(None)
        for thread in self._threads:
            thread.stop()
        self._save()

    def _save(self) -> None:
        """Leave a piece, where this process may write it; one that goes on afterwards leaves all of it again."""
        piece = {path: tuple(pairs.copy()) for path, pairs in self._data.copy().items() if pairs}
        if not piece:
            return
        self._saved += 1
        try:
            made = os.open(
                f"{self._place}/{os.getpid()}.{self._saved}.{os.urandom(6).hex()}",
                os.O_WRONLY | os.O_CREAT | os.O_EXCL,
                0o644,
            )
        except OSError:
            return
        try:
            os.write(made, marshal.dumps(piece))
        except OSError:
            pass
        finally:
            os.close(made)
