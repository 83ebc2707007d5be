"""Progress of a long step: a bar on a terminal, a line every five seconds elsewhere, nothing when quick."""

import sys
import time
from logging import getLogger
from types import TracebackType
from typing import Any

log = getLogger(__name__)

_LINE_EVERY_S, _BAR_AFTER_S = 5.0, 1.0


class Progress:
    """Counts rows of one step.

    :param total: rows, as estimated; 0 where nothing is known.
    """

    def __init__(self, what: str, total: int) -> None:
        self.what = what
        self.total = max(total, 0)
        self.done = 0
        self.started = time.monotonic()
        self._told_at = self.started
        self._bar: Any = None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, rows: int) -> None:
        """Count rows, and tell where it is time to."""
        self.done += rows
        now = time.monotonic()
        if sys.stderr.isatty() and now - self.started >= _BAR_AFTER_S:
            self._show()
        elif now - self._told_at >= _LINE_EVERY_S:
            self._told_at = now
            log.info("  %s", self.line(now - self.started))

    def line(self, seconds: float) -> str:
        """Say how far it is after so many seconds."""
        rate = self.done / seconds
        words = f"{self.what}: {self.done:,} rows, {rate:,.0f} rows/s"
        if self.total > self.done:
            words += f", about {(self.total - self.done) / rate:,.0f} s left"
        return words

    def _show(self) -> None:
        if self._bar is None:
            try:
                from rich.console import Console
                from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
                from rich.progress import Progress as Bar
            except ImportError:  # rich comes with an extra
                self._bar = _NoBar()
            else:
                columns = (
                    TextColumn("  {task.description}"),
                    BarColumn(),
                    MofNCompleteColumn(),
                    TimeRemainingColumn(),
                )
                self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
                self._bar.add_task(self.what, total=self.total or None)
                self._bar.start()
        self._bar.update(0, completed=self.done)


class _NoBar:
    def update(self, task: int, *, completed: int) -> None:
        """Show nothing."""

    def stop(self) -> None:
        """Show nothing."""
