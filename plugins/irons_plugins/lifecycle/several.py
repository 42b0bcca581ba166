"""Work on several sandboxes: an error of one does not stop the others, and the worst exit code is the whole's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irons.errors import IronsError

if TYPE_CHECKING:
    from irons.context import Context


class Failures:
    """What went wrong with some of several sandboxes, reported as it happens."""

    def __init__(self, ctx: Context, total: int, was: str) -> None:
        """Take how many sandboxes are worked on, and what those that failed are not, such as `destroyed`."""
        self._ctx = ctx
        self._total = total
        self._was = was
        self._errors: list[IronsError] = []

    def add(self, name: str, error: IronsError) -> None:
        """Report the failure of one; where there is only one, raise it."""
        if self._total == 1:
            raise error
        self._errors.append(error)
        self._ctx.progress(f"irons: {name}: {error.message}")

    def end(self) -> None:
        """Raise the worst failure with how many there were, if there were any."""
        if not self._errors:
            return
        worst = max(self._errors, key=lambda error: error.exit_code)
        summary = IronsError(
            f"{len(self._errors)} of {self._total} sandboxes were not {self._was}", hint=worst.hint
        )
        summary.code, summary.exit_code = worst.code, worst.exit_code
        raise summary
