"""Output formats of plugins: which there are, and an answer written by one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from irons.command import FORMATS, View
from irons.errors import PluginError, UsageError
from irons.terminal.output import as_mapping, is_row
from irons.text import clean, rfc3339

if TYPE_CHECKING:
    from irons.host import PluginHost
    from irons.settings.settings import Value
    from irons.terminal.streams import Streams

Writer = Callable[[Iterator[Mapping[str, Any]], Sequence[str]], Iterable[str]]
"""Rows and the keys of the command's columns in, text out."""


def check_format(output: Value, host: PluginHost) -> None:
    """Refuse an output format that neither irons nor a plugin has.

    Args:
        output: The setting `output`.
        host: The plugins.

    Raises:
        UsageError: There is no such format.
    """
    if output.value is None or output.value in FORMATS:
        return
    known = [*FORMATS, *sorted(name for name in host.formats() if name not in FORMATS)]
    if output.value in known:
        return
    from difflib import get_close_matches

    near = get_close_matches(str(output.value), known, n=1)
    hint = f"did you mean {near[0]}?" if near else ""
    if output.source == "flag":
        either = f"{', '.join(known[:-1])} or {known[-1]}"
        raise UsageError(f"--output takes {either}, not {output.value!r}", hint=hint)
    where = f" (from {output.source})" if output.source else ""
    raise UsageError(f"output is one of {', '.join(known)}, not {output.value!r}{where}", hint=hint)


def show_by_plugin(
    name: str, host: PluginHost, data: object, view: View, streams: Streams, *, follow: bool
) -> None:
    """Write an answer to stdout in a plugin's format. Control characters in what it yields are escaped.

    Args:
        name: The format; `check_format` found it.
        host: The plugins.
        data: What the handler returned.
        view: How rows are shown to a person: its columns' keys are what the writer gets.
        streams: Where to write.
        follow: Rows come as they happen: each piece is flushed.

    Raises:
        PluginError: The writer can't be imported.
    """
    reference = host.formats()[name]
    module, _, function = reference.partition(":")
    try:
        writer: Writer = getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise PluginError(
            f"format {name}: {reference!r} names nothing: {type(error).__name__}: {error}"
        ) from error
    columns = tuple(column.key for column in view.columns if column.key)
    for piece in writer(map(_plain, _rows(data)), columns):
        streams.stdout.write("\n".join(_cleaned(line) for line in piece.split("\n")))
        if follow:
            streams.stdout.flush()
    streams.stdout.flush()


def _rows(data: object) -> Iterator[object]:
    if data is None:
        return iter(())
    if isinstance(data, str):
        return iter([{"text": data}])
    if is_row(data):
        return iter([data])
    if not isinstance(data, Iterable):
        message = f"a handler returns a row, rows, a string, Result, Exec or None, not {type(data).__name__}"
        raise TypeError(message)
    return ({"text": row} if isinstance(row, str) else row for row in cast("Iterable[object]", data))


def _plain(row: object) -> Mapping[str, Any]:
    """A row as a writer gets it: times as RFC 3339, as in JSON."""
    return {
        key: rfc3339(value) if isinstance(value, datetime) else value
        for key, value in as_mapping(row).items()
    }


def _cleaned(line: str) -> str:
    if line.isprintable():
        return line
    end = "\r" if line.endswith("\r") else ""
    return "\t".join(clean(part) for part in line.removesuffix("\r").split("\t")) + end
