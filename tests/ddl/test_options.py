"""What the options of a run leave out."""

from collections.abc import Callable

import pytest
from sqlalchemy import Column, ForeignKey, Integer, MetaData, Table, Uuid

from tests.databases import Database
from tests.ddl.proof import Proof
from workflow_models import WorkflowDefinition, migrations
from workflow_models.base import metadata as models

EXTRA = """
CREATE POLICY auditors ON workflow_definitions FOR SELECT TO anon USING (true);
CREATE INDEX slow ON workflow_execution_logs (error_details);
ALTER TABLE workflow_execution_logs ALTER workflow_id SET STATISTICS 500;
"""


def test_what_the_options_allow_is_not_reported(upgraded: Database, prove: Callable[..., Proof]) -> None:
    upgraded.execute(EXTRA)
    allowed = (
        "policy auditors on workflow_definitions",
        "index slow on workflow_execution_logs",
        "statistics target workflow_id on workflow_execution_logs",
    )

    assert len(prove(upgraded).generate().changes) == 3
    assert prove(upgraded, allow_extra=allowed).generate().changes == ()


def test_what_is_declared_may_not_differ_whatever_the_options_allow(
    upgraded: Database, prove: Callable[..., Proof]
) -> None:
    upgraded.execute('ALTER POLICY "Users can view workflow logs" ON workflow_execution_logs USING (true)')
    allowed = ("policy Users can view workflow logs on workflow_execution_logs",)

    assert len(prove(upgraded, allow_extra=allowed).generate().changes) == 1


def service() -> MetaData:
    metadata = MetaData()
    Table(
        "projects",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("workflow_id", Uuid, ForeignKey(WorkflowDefinition.__table__.c.id)),
    )
    return metadata


@pytest.mark.parametrize("together", [False, True], ids=["theirs alone", "theirs and ours"])
@pytest.mark.parametrize("state", ["upgraded", "empty"])
def test_a_service_neither_creates_nor_drops_anything_of_ours(
    clone: Callable[[str], Database], state: str, together: bool, prove: Callable[..., Proof]
) -> None:
    database = clone(state)
    if state == "upgraded":
        database.execute(EXTRA + "ALTER TABLE workflow_execution_logs ADD COLUMN note text")
    theirs = service()
    proof = prove(
        database,
        metadata=[theirs, models] if together else theirs,
        include_name=migrations.service_include_name,
        include_object=lambda item, *rest: (
            migrations.service_include_object(item, *rest) and _is_no_stand_in(item)
        ),
        include_schemas=True,
        version_table_schema=None,
    )

    assert proof.generate().titles == ("add table projects",)


def _is_no_stand_in(item: object) -> bool:
    return not (isinstance(item, Table) and item.name in ("organizations", "profiles"))
