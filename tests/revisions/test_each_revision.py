"""Each revision goes up, down and up again, with rows in the tables."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import pytest

from tests.application.states import CLIMBERS, REVISIONS, STATES, at
from tests.catalog import Rows, Snapshot, misplaced_logs, rows, rows_like, snapshot
from tests.databases import Database, Templates
from workflow_models import migrations
from workflow_models.online import MigrationError

Clone: TypeAlias = Callable[[str], Database]

LOSING = {"allow-data-loss": "true"}

each_climber = pytest.mark.parametrize("start", CLIMBERS)


def schema(database: Database) -> Snapshot:
    return snapshot(database.observer)


def found(database: Database) -> tuple[Snapshot, Rows]:
    return snapshot(database.observer), rows(database.observer)


@dataclass(frozen=True)
class RoundTrip:
    """A database after a revision, after its downgrade, and after its upgrade again."""

    earlier: str
    before: tuple[Snapshot, Rows]
    down: tuple[Snapshot, Rows]
    after: tuple[Snapshot, Rows]


@pytest.fixture(
    scope="module",
    params=[(start, *step) for start in CLIMBERS for step in itertools.pairwise(REVISIONS)],
    ids=lambda param: f"{param[0]}-{param[2]}",
)
def round_trip(request: pytest.FixtureRequest, templates: Templates) -> Iterator[RoundTrip]:
    """Each revision but the first, down and up again, on each database that climbed up to it."""
    start, earlier, revision = request.param
    database = templates.clone(at(start, revision))
    try:
        before = found(database)
        migrations.downgrade(database.url(), earlier, x=LOSING)
        down = found(database)
        migrations.upgrade(database.url(), revision)
        yield RoundTrip(earlier, before, down, found(database))
    finally:
        templates.drop(database)


@pytest.fixture(scope="module")
def schema_at(templates: Templates) -> Callable[[str], Snapshot]:
    """The schema that a revision leaves on an empty database."""

    @cache
    def schema_at(revision: str) -> Snapshot:
        database = templates.clone(at("empty", revision))
        try:
            return schema(database)
        finally:
            templates.drop(database)

    return schema_at


def test_a_revision_goes_down_to_the_schema_of_the_earlier_one(
    round_trip: RoundTrip, schema_at: Callable[[str], Snapshot]
) -> None:
    assert round_trip.down[0] == schema_at(round_trip.earlier)


def test_a_revision_goes_up_again_to_the_schema_it_had(round_trip: RoundTrip) -> None:
    assert round_trip.after[0] == round_trip.before[0]


def test_a_revision_keeps_every_row_down_and_up_again(round_trip: RoundTrip) -> None:
    (_, before), (_, down), (_, after) = round_trip.before, round_trip.down, round_trip.after

    assert down == rows_like(before, down)
    assert rows_like(after, down) == down


@each_climber
def test_every_log_has_its_organization_from_the_backfill_on(clone: Clone, start: str) -> None:
    database = clone(at(start, "wf0004"))

    assert misplaced_logs(database.observer) == []


@each_climber
def test_a_chain_climbed_step_by_step_ends_where_one_climbed_at_once_does(clone: Clone, start: str) -> None:
    assert schema(clone(at(start, REVISIONS[-1]))) == schema(clone("upgraded"))


# The others climbed up, and have gone down each step already.
@pytest.mark.parametrize("state", [state for state in STATES if state not in CLIMBERS])
def test_the_whole_chain_goes_down_step_by_step(
    clone: Clone, state: str, schema_at: Callable[[str], Snapshot]
) -> None:
    database = clone(f"{state}_upgraded")

    left = []
    for revision in reversed(REVISIONS[:-1]):
        migrations.downgrade(database.url(), "-1", x=LOSING)
        left.append((revision, schema(database) == schema_at(revision)))

    assert left == [(revision, True) for revision in reversed(REVISIONS[:-1])]


def test_the_first_revision_goes_down_and_up_again(clone: Clone) -> None:
    database = clone(at("empty", REVISIONS[0]))
    before = schema(database)

    migrations.downgrade(database.url(), "base", x=LOSING)
    migrations.upgrade(database.url(), REVISIONS[0])

    assert schema(database) == before


def test_a_backfill_that_stopped_half_way_goes_down_and_up_again(clone: Clone) -> None:
    database, whole = clone("adopted_base_only"), clone(at("adopted_base_only", REVISIONS[-1]))
    undo = "CREATE TRIGGER undo BEFORE UPDATE ON workflow_execution_logs FOR EACH ROW EXECUTE FUNCTION undo()"
    database.execute(
        f"CREATE FUNCTION undo() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; {undo}"
    )
    with pytest.raises(MigrationError, match="did not get the organization of their workflow"):
        migrations.upgrade(database.url())

    migrations.downgrade(database.url(), REVISIONS[0], x={"allow-data-loss": "true"})
    database.execute("DROP FUNCTION undo() CASCADE")
    migrations.upgrade(database.url())

    assert schema(database) == schema(whole)


def test_a_column_that_cannot_go_keeps_its_triggers(clone: Clone) -> None:
    # As where the last revision has stopped after its first policy.
    database = clone(at("adopted", "wf0005"))
    database.execute(
        """
        ALTER POLICY "Workers can view workflow logs" ON workflow_execution_logs
        USING (organization_id = (SELECT workflow_private.worker_organization()))
        """
    )

    with pytest.raises(MigrationError, match="Workers can view workflow logs"):
        migrations.downgrade(database.url(), REVISIONS[0], x={"allow-data-loss": "true"})

    assert migrations.current(database.url()) == [REVISIONS[2]]
    migrations.upgrade(database.url())
    assert schema(database) == schema(clone(at("adopted", REVISIONS[-1])))
