"""An export to a file, exactly once: the output and the cursor agree, whenever the process was ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from irons.errors import UsageError
from irons_plugins.audit.export.position import ExportCursor, Position

if TYPE_CHECKING:
    from irons_plugins.audit.export.formats import Encoder
    from irons_plugins.audit.export.records import ExportRecord
    from irons_plugins.audit.export.storage import Storage


def resume(
    storage: Storage, begin: ExportCursor, encoder: Encoder, name: str, former: Callable[[ExportCursor], None]
) -> ExportFile:
    """Go on where the cursor says, or begin; what was written beyond the cursor is cut off.

    The first cursor is stored before the first byte is written: an output with bytes and without a cursor is not ours.

    Args:
        storage: The output and the cursor.
        begin: The cursor of an export that begins.
        encoder: Makes bytes of records.
        name: The cursor file's name, for messages.
        former: Cuts the output that a cursor names, where that is another one than `begin` names: the export goes on in a new file.

    Raises:
        UsageError: The cursor is of another export, or the output is not the one that it belongs to.
    """
    found = storage.load_cursor()
    if found is None:
        if storage.size():
            raise UsageError(
                f"{begin.to} has data, and there is no cursor {name} that belongs to it",
                hint="name the cursor that it was written with, or an empty or new file",
            )
        storage.store_cursor(begin.encode())
        return ExportFile(storage, begin, encoder)
    cursor = ExportCursor.decode(found, name)
    for what, given, wanted in (("log", begin.log, cursor.log), ("format", begin.format, cursor.format)):
        if given != wanted:
            raise UsageError(f"{name} is the cursor of an export with the {what} {wanted}, not {given}")
    if cursor.to != begin.to:
        if storage.size():
            raise UsageError(
                f"{name} belongs to {cursor.to}, and {begin.to} has data",
                hint="an export goes on in an empty or new file",
            )
        former(cursor)
        cursor = cursor._replace(to=begin.to, length=0)
        storage.store_cursor(cursor.encode())
    check_length(storage, cursor)
    storage.truncate(cursor.length)
    return ExportFile(storage, cursor, encoder)


def check_length(storage: Storage, cursor: ExportCursor) -> None:
    """Refuse an output that is shorter than its cursor says: it is another file, or was changed.

    Raises:
        UsageError: It is shorter.
    """
    size = storage.size()
    if size < cursor.length:
        raise UsageError(
            f"{cursor.to} has {size:,} bytes, and its cursor knows of {cursor.length:,}: it was changed or replaced",
            hint="put it back, or go on in a new file by another --to",
        )


class ExportFile:
    """Takes records, each batch with the position after it.

    Args:
        storage: The output and the cursor, in step.
        cursor: The cursor as it is stored.
        encoder: Makes bytes of records.
    """

    def __init__(self, storage: Storage, cursor: ExportCursor, encoder: Encoder) -> None:
        self.cursor = cursor
        self._storage = storage
        self._encoder = encoder

    def put(self, records: Iterable[ExportRecord], position: Position) -> None:
        """Write a batch, and then the position after it; a batch whose position was not stored is written again."""
        data = self._encoder.encode(records)
        if data and not self.cursor.length:
            data = self._encoder.head() + data
        if not data and position == self.cursor.position:
            return
        if data:
            self._storage.append(data)
            self._storage.sync()
        self.cursor = self.cursor._replace(length=self.cursor.length + len(data), position=position)
        self._storage.store_cursor(self.cursor.encode())
