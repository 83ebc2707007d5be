"""Old code writes and definitions move before each statement of an upgrade: every log ends in its place."""

from collections.abc import Callable
from itertools import cycle
from typing import Any

import psycopg
import pytest
from psycopg import IsolationLevel

from tests.application import ACME, ACME_WORKFLOW, GLOBAL_WORKFLOW, GLOBEX, GLOBEX_WORKFLOW
from tests.databases import Database
from tests.online.test_kills import each_statement
from tests.test_integrity import MOVE, OLD_INSERT, misplaced, service
from workflow_models import migrations

# Between them each definition goes from one organization to another, to none, and from none.
GOALS = (GLOBEX, None, ACME)


@pytest.mark.parametrize("level", [IsolationLevel.READ_COMMITTED, IsolationLevel.REPEATABLE_READ])
def test_moves_and_old_inserts_between_all_statements_leave_no_log_in_a_wrong_organization(
    clone: Callable[[str], Database], level: IsolationLevel
) -> None:
    database = clone("half_fixed")
    migrations.upgrade(database.url(), "wf0003_add_organization_id")
    moves = cycle(
        (workflow, to) for to in GOALS for workflow in (ACME_WORKFLOW, GLOBEX_WORKFLOW, GLOBAL_WORKFLOW)
    )
    moved: list[bool] = []

    with service(database) as writer:
        writer.isolation_level = level

        def write(connection: Any, _statement: str) -> None:
            # In a transaction the migrator may hold locks, and cannot be waited for in its own thread.
            if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
                return
            workflow, to = next(moves)
            writer.execute(OLD_INSERT, {"workflow": workflow})
            try:
                with writer.transaction():
                    writer.execute(MOVE, {"workflow": workflow, "to": to})
                moved.append(True)
            except psycopg.errors.FeatureNotSupported:  # a move from none, above READ COMMITTED
                moved.append(False)

        with each_statement(write):
            migrations.upgrade(database.url())

    assert len(moved) > 30
    assert all(moved) == (level is IsolationLevel.READ_COMMITTED)
    assert any(moved)
    assert misplaced(database) == []
