"""What a generated revision looks like to the one who reviews it."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from tests import catalog
from tests.application.states import REVISIONS
from tests.databases import Database
from tests.ddl.proof import Generated, Proof
from workflow_models import migrations


def generated(database: Database, prove: Callable[..., Proof], sql: str) -> tuple[Generated, Any]:
    """The revision for a change, and the summary that its docstring opens with."""
    database.execute(sql)
    known: dict[str, Any] = {}
    return prove(database, template_args=known).generate(), known["summary"]


def statements(source: str) -> str:
    return "\n".join(line[4:] for line in source.splitlines() if "# ###" not in line)


def test_a_drop_that_loses_data_is_left_to_people(upgraded: Database, prove: Callable[..., Proof]) -> None:
    revision, _ = generated(upgraded, prove, "ALTER TABLE workflow_execution_logs ADD COLUMN note text")

    assert statements(revision.upgrade) == (
        'raise NotImplementedError("decide about column note of workflow_execution_logs: '
        'not in the models, and lost when dropped.")\n'
        "# op.drop_column('workflow_execution_logs', 'note')"
    )
    with pytest.raises(NotImplementedError, match="decide about column note"):
        prove(upgraded).run(revision.upgrade)


def test_a_column_that_may_have_been_renamed_is_pointed_out(
    upgraded: Database, prove: Callable[..., Proof]
) -> None:
    revision, _ = generated(
        upgraded, prove, "ALTER TABLE workflow_execution_logs RENAME COLUMN error_details TO error"
    )

    assert (
        "decide about column error of workflow_execution_logs (or is it what error_details was called?)"
        in (revision.upgrade)
    )


def test_a_rewrite_of_a_table_is_announced(upgraded: Database, prove: Callable[..., Proof]) -> None:
    revision, summary = generated(
        upgraded, prove, "ALTER TABLE workflow_execution_logs ALTER duration_ms TYPE bigint"
    )

    assert statements(revision.upgrade) == (
        "# ACCESS EXCLUSIVE on workflow_execution_logs while it may be rewritten: nobody reads it then.\n"
        'op.execute(\n    "ALTER TABLE workflow_execution_logs ALTER COLUMN duration_ms TYPE integer '
        'USING duration_ms::integer"\n)'
    )
    assert summary.changes == (
        "Changes: type duration_ms on workflow_execution_logs: value is 'bigint', declared 'integer'."
    )
    assert summary.locks == ("Locks: ACCESS EXCLUSIVE on workflow_execution_logs while it may be rewritten.")


def test_an_index_is_built_outside_of_the_transaction(
    upgraded: Database, prove: Callable[..., Proof]
) -> None:
    revision, summary = generated(
        upgraded,
        prove,
        "DROP INDEX idx_workflow_execution_logs_status; ALTER TABLE workflow_definitions "
        "DISABLE ROW LEVEL SECURITY",
    )

    before, found, inside = revision.upgrade.partition("with op.get_context().autocommit_block():")
    assert found
    assert "ENABLE ROW LEVEL SECURITY" in before
    assert "CREATE INDEX CONCURRENTLY idx_workflow_execution_logs_status ON workflow_execution_logs" in inside
    assert "DROP INDEX CONCURRENTLY IF EXISTS idx_workflow_execution_logs_status" in inside
    assert summary.changes == (
        "Adds: index idx_workflow_execution_logs_status on workflow_execution_logs.\n"
        "Changes: row security on workflow_definitions: enabled is False, declared True."
    )


def test_not_null_is_proven_before_it_is_set(upgraded: Database, prove: Callable[..., Proof]) -> None:
    revision, _ = generated(upgraded, prove, "ALTER TABLE workflow_definitions ALTER name DROP NOT NULL")

    order = ["NOT VALID", "VALIDATE CONSTRAINT", "SET NOT NULL", "DROP CONSTRAINT"]
    places = [revision.upgrade.index(step) for step in order]
    assert places == sorted(places)


def test_a_policy_is_replaced_in_one_transaction(upgraded: Database, prove: Callable[..., Proof]) -> None:
    revision, summary = generated(
        upgraded,
        prove,
        'ALTER POLICY "Users can view workflow logs" ON workflow_execution_logs USING (true); '
        "DROP INDEX idx_workflow_execution_logs_status",
    )

    dropped, created = (
        revision.upgrade.index(f'{verb} "Users can view workflow logs"')
        for verb in ("DROP POLICY IF EXISTS", "CREATE POLICY")
    )
    assert dropped < created < revision.upgrade.index("autocommit_block")
    assert (
        "May widen access: policy Users can view workflow logs on workflow_execution_logs." in summary.changes
    )


def test_a_function_comes_before_the_policy_that_calls_it(
    upgraded: Database, prove: Callable[..., Proof]
) -> None:
    revision, _ = generated(upgraded, prove, "DROP FUNCTION workflow_private.worker_organization() CASCADE")

    assert revision.upgrade.index("CREATE OR REPLACE FUNCTION") < revision.upgrade.index("CREATE POLICY")
    assert revision.downgrade.index("DROP POLICY") < revision.downgrade.index("DROP FUNCTION")


@pytest.mark.parametrize(("earlier", "revision"), list(pairwise(REVISIONS)))
def test_a_revision_of_the_chain_goes_up_down_and_up_again(
    earlier: str, revision: str, empty: Database
) -> None:
    def read() -> catalog.Snapshot:
        with empty.connect(empty.superuser) as connection:
            return catalog.snapshot(connection)

    migrations.upgrade(empty.url(), earlier)
    before = read()
    migrations.upgrade(empty.url(), revision)
    after = read()

    migrations.downgrade(empty.url(), earlier)
    assert read() == before
    migrations.upgrade(empty.url(), revision)
    assert read() == after


def test_odd_names_and_texts_come_back_as_they_were(upgraded: Database, prove: Callable[..., Proof]) -> None:
    upgraded.execute(
        r"""
        CREATE POLICY "x :a:b \:c 100%" ON workflow_definitions FOR SELECT USING (name = ':a:b %s');
        ALTER TABLE workflow_definitions ADD CONSTRAINT odd CHECK (name !~ '[:alpha:]9\:x$');
        COMMENT ON COLUMN workflow_definitions.name IS ':a:b \:c %(d)s';
        CREATE INDEX "a ON b" ON workflow_definitions (name);
        """
    )
    proof = prove(upgraded)

    proof.of(proof.generate().decided)
