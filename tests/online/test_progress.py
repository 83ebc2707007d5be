"""What long steps tell while they run: on a terminal a bar, elsewhere a line now and then, else nothing."""

import logging
import re
import sys
from collections.abc import Callable
from io import StringIO
from typing import TypeAlias

import pytest

from tests.databases import Database
from tests.online.library import Chain, Migrator
from workflow_models.online import progress
from workflow_models.online.progress import Progress, Reached

Chains: TypeAlias = Callable[..., Chain]

INDEX = """
def upgrade(): op.create_index_concurrently("books_title_idx", "books", ["title"])
"""
VALIDATION = """
def upgrade(): op.validate_constraint("due", "loans")
"""


class Clock:
    """Seconds that pass only when told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="workflow_models")
    return caplog


def test_a_quick_step_tells_nothing(clock: Clock, log: pytest.LogCaptureFixture) -> None:
    with Progress("filling books", 100, clock=clock) as step:
        clock.now = 4.9
        step.advance(100)

    assert log.messages == []


def test_a_long_step_tells_every_five_seconds_how_far_it_is(
    clock: Clock, log: pytest.LogCaptureFixture
) -> None:
    with Progress("filling books", 10_000, clock=clock) as step:
        for second in range(1, 13):
            clock.now = second
            step.advance(500)

    assert log.messages == [
        "  filling books: 2,500 of 10,000 rows, 500 rows/s, about 15 s left",
        "  filling books: 5,000 of 10,000 rows, 500 rows/s, about 10 s left",
    ]


def test_what_is_not_known_is_not_told(clock: Clock, log: pytest.LogCaptureFixture) -> None:
    with Progress("filling books", -1, clock=clock) as step:
        clock.now = 10
        step.advance(50)

    assert log.messages == ["  filling books: 50 rows, 5 rows/s"]


def test_each_phase_has_a_rate_of_its_own_and_who_is_waited_for_is_named(
    clock: Clock, log: pytest.LogCaptureFixture
) -> None:
    with Progress("building books_title_idx", clock=clock) as step:
        for second, reached in (
            (
                100,
                Reached("waiting for writers before build", 0, 2, "transactions", "pid 4711 (edge-worker)"),
            ),
            (101, Reached("building index: scanning table", 1_000, 9_000, "blocks")),
            (111, Reached("building index: scanning table", 4_000, 9_000, "blocks")),
            (121, Reached()),
        ):
            clock.now = second
            step.reached(reached)

    name = "  building books_title_idx: "
    writers = "waiting for writers before build, 0 of 2 transactions"
    scan = "building index: scanning table, 4,000 of 9,000 blocks"
    assert log.messages == [
        f"{name}{writers}, 100 s so far, waiting for pid 4711 (edge-worker)",
        f"{name}{scan}, 300 blocks/s, about 17 s left",
        f"{name}121 s so far",
    ]


def test_a_terminal_shows_a_bar_once_a_step_takes_longer_than_a_second(
    clock: Clock, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setenv("COLUMNS", "80")
    with Progress("filling workflow_execution_logs", 10_000, clock=clock) as step:
        clock.now = 0.9
        step.advance(900)
        assert terminal.getvalue() == ""
        clock.now = 10
        step.advance(1_600)

    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue())
    bar, words = (
        r"  filling workflow_execution_logs ━+\S* *━*\s*",
        r"  2,500 of 10,000 rows, 250 rows/s, about 30 s left",
    )
    assert re.search(f"{bar}\n{words}", shown)
    assert log.messages == []


def test_a_terminal_without_rich_shows_lines(
    clock: Clock, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(progress, "find_spec", lambda _: None)
    with Progress("filling books", 100, clock=clock) as step:
        clock.now = 5
        step.advance(50)

    assert log.messages == ["  filling books: 50 of 100 rows, 10 rows/s, about 5 s left"]


# What the server says.


@pytest.mark.parametrize("table", ["books", "library.books"])
def test_an_index_build_tells_its_phase_and_for_whom_it_waits(
    library: Database,
    chain: Chains,
    log: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    table: str,
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0)
    one = chain(INDEX.replace('"books"', f'"{table}"'))
    with library.connect(autocommit=False) as writer:
        writer.execute("LOCK TABLE library.books IN ROW EXCLUSIVE MODE")
        migrator = Migrator(library, lambda: one.upgrade(library))
        migrator.until_it_says(
            "  building books_title_idx: waiting for writers before build, 0 of 1 transactions", log
        )
        migrator.until_it_says(f"waiting for pid {writer.info.backend_pid} (user app_owner", log)
        writer.rollback()
        migrator.result()


def test_a_validation_tells_for_whom_it_waits(
    library: Database, chain: Chains, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0)
    library.execute("ALTER TABLE library.loans ADD CONSTRAINT due CHECK (due > '2000-01-01') NOT VALID")
    one = chain(VALIDATION)
    with library.connect(autocommit=False) as other:
        other.execute("LOCK TABLE library.loans IN SHARE UPDATE EXCLUSIVE MODE")
        migrator = Migrator(library, lambda: one.upgrade(library))
        migrator.until_it_says("  validating due: ", log)
        migrator.until_it_says(f"so far, waiting for pid {other.info.backend_pid} (user app_owner", log)
        other.rollback()
        migrator.result()
