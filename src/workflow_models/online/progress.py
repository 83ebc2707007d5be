"""Progress of a long step: a bar on a terminal, a line every five seconds elsewhere, nothing when quick."""

import sys
import time
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from logging import getLogger
from types import TracebackType
from typing import Any, NamedTuple, Protocol, TypeAlias

from sqlalchemy import Connection, text

from . import statements

log = getLogger(__name__)

LINE_EVERY_S, BAR_AFTER_S = 5.0, 1.0


class Reached(NamedTuple):
    """How far a step is.

    :param phase: a part of the step, which counts from 0 by itself; None where there are no parts.
    :param blockers: whom it waits for at the moment.
    """

    phase: str | None = None
    done: int = 0
    total: int = 0
    unit: str = ""
    blockers: str | None = None


class Progress:
    """Tells how far one step is.

    :param what: the step, as ``filling books``.
    :param total: units in all, as estimated; 0 where nothing is known.
    :param unit: what is counted, in the plural.
    :param clock: gives seconds.
    """

    def __init__(
        self, what: str, total: int = 0, unit: str = "rows", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.what = what
        self.started = self._told_at = clock()
        self._clock = clock
        self._bar: Any = None
        self._begin(Reached(total=max(total, 0), unit=unit))

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, done: int) -> None:
        """Count, and tell where it is time to."""
        self.done += done
        self._tell(None)

    def reached(self, at: Reached) -> None:
        """Take over what the server says, and tell where it is time to."""
        if (at.phase, at.unit) != (self.phase, self.unit):
            self._begin(at)
        self.done, self.total = at.done, at.total
        self._tell(at.blockers)

    def _begin(self, at: Reached) -> None:
        self.phase: str | None = at.phase
        self.unit: str = at.unit
        self.total = at.total
        self.done = self._done_before = at.done
        self._phase_started = self._clock()

    def _tell(self, blockers: str | None) -> None:
        now = self._clock()
        if sys.stderr.isatty() and find_spec("rich"):  # which comes with an extra
            if now - self.started >= BAR_AFTER_S:
                self._show(self._words(now, blockers))
        elif now - self._told_at >= LINE_EVERY_S:
            self._told_at = now
            log.info("  %s: %s", self.what, self._words(now, blockers))

    def _words(self, now: float, blockers: str | None) -> str:
        words = [self.phase] if self.phase else []
        if self.done or self.total:
            words.append(f"{self.done:,}" + (f" of {self.total:,}" if self.total else "") + f" {self.unit}")
        seconds = now - self._phase_started
        if seconds and self.done > self._done_before:
            rate = (self.done - self._done_before) / seconds
            words.append(f"{rate:,.0f} {self.unit}/s" if rate >= 1 else f"{rate:.2f} {self.unit}/s")
            if self.total > self.done:
                words.append(f"about {(self.total - self.done) / rate:,.0f} s left")
        else:
            words.append(f"{now - self.started:,.0f} s so far")
        if blockers:
            words.append(f"waiting for {blockers}")
        return ", ".join(words)

    def _show(self, words: str) -> None:
        from rich.console import Console, RenderableType
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar
        from rich.text import Text

        class BarAndWords(Bar):
            """The words on a line of their own: they and the bar have no room on one of 80 columns."""

            def get_renderables(self) -> Iterable[RenderableType]:
                yield self.make_tasks_table(self.tasks)
                yield from (
                    Text(f"  {task.fields['words']}", no_wrap=True, overflow="ellipsis")
                    for task in self.tasks
                )

        if self._bar is None:
            columns = TextColumn("  {task.description}", markup=False), BarColumn(20)
            self._bar = BarAndWords(*columns, console=Console(stderr=True), transient=True)
            self._bar.add_task(self.what, words=words)
            self._bar.start()
        self._bar.update(0, completed=self.done, total=self.total or None, words=words)


# Says who is in the way of a backend; None stands for the migrator's own.
Blockers: TypeAlias = Callable[[int | None], str | None]


class Observed(Protocol):
    """A statement that cannot tell by itself how far it is: somebody else asks the server."""

    progress: Progress

    def ask(self, connection: Connection, blockers: Blockers) -> Reached:
        """Ask how far it is.

        :param connection: another one, in autocommit.
        """


class IndexBuild:
    """An index that is being built.

    :param table: with its schema.
    """

    def __init__(self, index: str, table: str) -> None:
        self.progress = Progress(f"building {index}")
        self._table = table

    def ask(self, connection: Connection, blockers: Blockers) -> Reached:
        """Ask ``pg_stat_progress_create_index``: a table has one concurrent build at a time."""
        build = connection.execute(_INDEX_BUILD, {"table": statements.relation(self._table)}).one_or_none()
        if build is None:
            return Reached(blockers=blockers(None))
        return Reached(build.phase, build.done, build.total, build.unit, blockers(build.pid))


class Unmeasured:
    """A statement of which the server tells only for whom it waits: a validation, a concurrent drop."""

    def __init__(self, what: str) -> None:
        self.progress = Progress(what)

    def ask(self, connection: Connection, blockers: Blockers) -> Reached:
        """Ask who is in the way."""
        del connection
        return Reached(blockers=blockers(None))


# The view has three pairs of numbers, of which those of earlier phases stay.
_INDEX_BUILD = text("""
    SELECT pid, phase,
        CASE counted WHEN 'transactions' THEN lockers_done WHEN 'blocks' THEN blocks_done
            WHEN 'rows' THEN tuples_done ELSE 0 END AS done,
        CASE counted WHEN 'transactions' THEN lockers_total WHEN 'blocks' THEN blocks_total
            WHEN 'rows' THEN tuples_total ELSE 0 END AS total,
        coalesce(counted, '') AS unit
    FROM (
        SELECT *, CASE WHEN phase LIKE 'waiting%' THEN 'transactions'
            WHEN phase LIKE '%scanning%' THEN 'blocks' WHEN phase LIKE '%loading%' THEN 'rows' END AS counted
        FROM pg_stat_progress_create_index
    ) AS build
    WHERE datname = current_database() AND relid = to_regclass(:table)
""")
