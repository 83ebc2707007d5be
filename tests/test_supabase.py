"""Supabase's own: how its API asks, what its default grants leave, what its database linter finds.

Who sees and writes what in general is in `test_policies.py`.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias
from uuid import UUID

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege

from tests.application import ACME, ACME_USER, ACME_WORKFLOW, GLOBEX, GLOBEX_WORKFLOW, UNKNOWN, Person
from tests.catalog import Connection
from tests.databases import Database, Templates
from tests.supabase.linter import LINTS, Lint
from tests.supabase.projects import OWNER, PROJECTS, admit_owner
from workflow_models import migrations

Json: TypeAlias = Any

_ADOPTING = Path(__file__).parents[1] / "docs" / "adopting.md"
GUIDE = _ADOPTING.read_text().partition("## On Supabase")[2]


@pytest.fixture(scope="module")
def live(templates: Templates) -> Iterator[Database]:
    """An upgraded project with the application in it, for tests that commit nothing."""
    database = templates.clone("supabase_live_upgraded")
    yield database
    templates.drop(database)


@pytest.fixture(scope="module")
def before(templates: Templates) -> Iterator[Database]:
    """The same before the upgrade."""
    database = templates.clone("supabase_live")
    yield database
    templates.drop(database)


@pytest.fixture(scope="module")
def new(templates: Templates) -> Iterator[Database]:
    """An upgraded project that was empty, for tests that commit nothing."""
    database = templates.clone("supabase_new_upgraded")
    yield database
    templates.drop(database)


# What the default grants leave.

PRIVILEGES = """
    SELECT c.relname, coalesce(nullif(acl.grantee, 0)::regrole::text, 'PUBLIC'),
        array_agg(acl.privilege_type::text ORDER BY acl.privilege_type)
    FROM pg_class AS c CROSS JOIN aclexplode(c.relacl) AS acl
    WHERE c.relnamespace = 'public'::regnamespace
        AND c.relname IN (
            'workflow_definitions', 'workflow_execution_logs', 'workflow_execution_logs_id_seq')
        AND acl.grantee <> c.relowner AND acl.grantee <> 'workflow_worker'::regrole
    GROUP BY 1, 2
"""
ALL = ["DELETE", "INSERT", "SELECT", "UPDATE"]


def privileges(database: Database) -> dict[tuple[str, str], list[str]]:
    return {(relation, role): granted for relation, role, granted in database.execute(PRIVILEGES)}


@pytest.mark.parametrize("project", PROJECTS)
def test_the_api_roles_have_what_is_declared_whatever_is_granted_by_default(
    clone: Callable[[str], Database], project: str
) -> None:
    assert privileges(clone(f"{project}_upgraded")) == {
        ("workflow_definitions", "authenticated"): ALL,
        ("workflow_definitions", "service_role"): ALL,
        ("workflow_execution_logs", "authenticated"): ["INSERT", "SELECT"],
        ("workflow_execution_logs", "service_role"): ALL,
        ("workflow_execution_logs_id_seq", "authenticated"): ["USAGE"],
        ("workflow_execution_logs_id_seq", "service_role"): ["USAGE"],
    }


@pytest.mark.parametrize("project", ["supabase_new", "supabase_new_opt_in"])
def test_the_stand_ins_are_for_no_client(clone: Callable[[str], Database], project: str) -> None:
    may_use = """
        SELECT role, has_any_column_privilege(role, name, 'SELECT, INSERT, UPDATE, REFERENCES')
            OR has_table_privilege(role, name, 'DELETE, TRUNCATE, TRIGGER')
        FROM unnest(ARRAY['organizations', 'profiles']) AS name
            CROSS JOIN unnest(ARRAY['supabase_postgres', 'anon', 'authenticated']) AS role
    """

    assert set(clone(f"{project}_upgraded").execute(may_use)) == {
        ("supabase_postgres", True),
        ("anon", False),
        ("authenticated", False),
    }


INSERT_FOREIGN_LOG = f"""
    INSERT INTO public.workflow_execution_logs (workflow_id, status) VALUES ('{GLOBEX_WORKFLOW}', 'running')
"""


@pytest.mark.parametrize(
    ("role", "statement", "rows"),
    [
        ("anon", "SELECT id FROM public.workflow_definitions", 0),
        ("anon", "SELECT id FROM public.workflow_execution_logs", 0),
        ("anon", INSERT_FOREIGN_LOG, 1),
        ("authenticated", INSERT_FOREIGN_LOG, 1),
        ("authenticated", "UPDATE public.workflow_execution_logs SET status = 'error' WHERE id > 0", 0),
        ("authenticated", "DELETE FROM public.workflow_execution_logs WHERE id > 0", 0),
    ],
)
def test_what_was_answered_is_refused_after_the_upgrade(
    before: Database, live: Database, role: str, statement: str, rows: int
) -> None:
    token = claims(ACME_USER) if role == "authenticated" else key(role)
    with before.as_role(role, token) as connection:
        assert connection.execute(statement.encode()).rowcount == rows

    with live.as_role(role, token) as connection, pytest.raises(InsufficientPrivilege):
        connection.execute(statement.encode())


# Upgrading as a project's own role.


@pytest.mark.parametrize("project", ["supabase_new_opt_in", "supabase_live"])
def test_a_check_finds_nothing_and_has_no_schema_read_again(
    clone: Callable[[str], Database], project: str
) -> None:
    database = clone(f"{project}_upgraded")
    with database.connect(database.superuser) as postgrest:
        postgrest.execute("LISTEN pgrst")

        migrations.check(database.url(OWNER))

        assert notified(postgrest) == []


def test_an_upgrade_has_the_schema_read_again(clone: Callable[[str], Database]) -> None:
    database = clone("supabase_live")
    admit_owner(database)
    with database.connect(database.superuser) as postgrest:
        postgrest.execute("LISTEN pgrst")

        migrations.upgrade(database.url(OWNER))

        assert set(notified(postgrest)) == {"reload schema"}


def notified(connection: psycopg.Connection[Any]) -> list[str]:
    # What was sent before this statement comes with its answer.
    connection.execute("SELECT")
    return [notify.payload for notify in connection.notifies(timeout=0)]


# Requests, as PostgREST makes them of what supabase-js sends.


def claims(person: Person, **more: object) -> Mapping[str, str]:
    """A token as Supabase's Auth signs it; users write `user_metadata` themselves."""
    return request(
        {
            "iss": "https://project.supabase.co/auth/v1",
            "aud": "authenticated",
            "role": "authenticated",
            "sub": str(person.id),
            "email": "user@example",
            "app_metadata": {"provider": "email", "providers": ["email"]},
            "user_metadata": {"organization_id": str(GLOBEX), "role": "super_admin"},
            "aal": "aal1",
            "session_id": "e0000000-0000-4000-8000-00000000000f",
            "is_anonymous": False,
            **more,
        }
    )


def key(role: str) -> Mapping[str, str]:
    """A project's own key, which names a role and no user."""
    return request({"iss": "supabase", "ref": "project", "role": role})


def request(token: Mapping[str, object]) -> Mapping[str, str]:
    return {
        "search_path": '"public", "extensions"',
        "request.jwt.claims": json.dumps(token),
        "request.method": "GET",
        "request.path": "/workflow_execution_logs",
        "request.headers": json.dumps({"host": "project.supabase.co"}),
    }


def get(connection: Connection, query: str, *parameters: object) -> Json:
    """The rows of a query as the API returns them, asked in a transaction that only reads."""
    connection.execute("SET TRANSACTION READ ONLY")
    asked = f"""
        WITH source AS ({query})
        SELECT pg_catalog.count(row), coalesce(pg_catalog.json_agg(row), '[]') FROM source AS row
    """
    row = connection.execute(asked.encode(), parameters).fetchone()
    assert row
    assert row[0] == len(row[1])
    return row[1]


def test_a_user_reads_logs_of_the_own_organization_with_their_workflows(live: Database) -> None:
    embedded = """
        SELECT log.id, log.organization_id, row_to_json(workflow) AS workflow
        FROM public.workflow_execution_logs AS log
        LEFT JOIN LATERAL (
            SELECT d.name, d.organization_id FROM public.workflow_definitions AS d
            WHERE d.id = log.workflow_id
        ) AS workflow ON true
        WHERE log.status = ANY (%s) ORDER BY log.created_at DESC LIMIT 500 OFFSET 0
    """
    with live.as_role("authenticated", claims(ACME_USER)) as connection:
        logs = get(connection, embedded, ["running", "success", "error", "partial"])

    assert len(logs) == 120
    assert {log["organization_id"] for log in logs} == {str(ACME)}
    assert {log["workflow"]["organization_id"] for log in logs} == {str(ACME)}


@pytest.mark.parametrize("table", ["workflow_definitions", "workflow_execution_logs"])
def test_a_user_who_signed_in_anonymously_reads_nothing(live: Database, table: str) -> None:
    anonymous = claims(UNKNOWN, is_anonymous=True, email="")

    with live.as_role("authenticated", anonymous) as connection:
        assert get(connection, f"SELECT * FROM public.{table}") == []


@pytest.mark.parametrize("table", ["workflow_definitions", "workflow_execution_logs"])
def test_the_anon_key_is_refused_and_the_service_key_reads_all(live: Database, table: str) -> None:
    with live.as_role("anon", key("anon")) as connection, pytest.raises(InsufficientPrivilege):
        get(connection, f"SELECT * FROM public.{table}")

    with live.as_role("service_role", key("service_role")) as connection:
        rows = get(connection, f"SELECT organization_id FROM public.{table}")

    assert {row["organization_id"] for row in rows} == {str(ACME), str(GLOBEX), None}


POST = """
    WITH source AS (
        INSERT INTO public.workflow_execution_logs (workflow_id, status)
        SELECT body.workflow_id, body.status
        FROM pg_catalog.json_to_recordset(%s) AS body (workflow_id uuid, status text)
        RETURNING public.workflow_execution_logs.*
    )
    SELECT pg_catalog.json_agg(row) FROM source AS row
"""


@pytest.mark.parametrize(
    ("role", "workflow", "organization"),
    [("authenticated", ACME_WORKFLOW, ACME), ("service_role", GLOBEX_WORKFLOW, GLOBEX)],
)
def test_an_inserted_log_comes_back_with_the_organization_of_its_workflow(
    live: Database, role: str, workflow: UUID, organization: UUID
) -> None:
    token = claims(ACME_USER) if role == "authenticated" else key(role)
    body = json.dumps([{"workflow_id": str(workflow), "status": "running"}] * 2)

    with live.as_role(role, token) as connection:
        row = connection.execute(POST.encode(), [body]).fetchone()

    assert row
    assert [log["organization_id"] for log in row[0]] == [str(organization)] * 2


def test_a_log_of_another_organizations_workflow_is_refused(live: Database) -> None:
    body = json.dumps([{"workflow_id": str(GLOBEX_WORKFLOW), "status": "running"}])

    user = live.as_role("authenticated", claims(ACME_USER))
    with user as connection, pytest.raises(InsufficientPrivilege):
        connection.execute(POST.encode(), [body])


# Embedding: PostgREST finds it by foreign keys, and refuses where there are two.

KEYS_TO_DEFINITIONS = """
    SELECT conname FROM pg_constraint
    WHERE contype = 'f' AND conrelid = 'public.workflow_execution_logs'::regclass
        AND confrelid = 'public.workflow_definitions'::regclass
    ORDER BY conname
"""


def test_the_hint_of_the_guide_names_a_key_that_is_there_before_and_after(
    before: Database, live: Database
) -> None:
    (hints,) = re.findall(r"```text\n(select=.*?)```", GUIDE, re.DOTALL)
    (hint,) = set(re.findall(r"!(\w+)\(", hints))

    assert before.execute(KEYS_TO_DEFINITIONS) == [(hint,)]
    assert live.execute(KEYS_TO_DEFINITIONS) == [
        (hint,),
        ("workflow_execution_logs_workflow_id_organization_id_fkey",),
    ]


def test_the_functions_of_the_guide_give_what_the_caller_may_see(clone: Callable[[str], Database]) -> None:
    (functions,) = re.findall(r"```sql\n(CREATE FUNCTION.*?)```", GUIDE, re.DOTALL)
    database = clone("supabase_live")
    admit_owner(database)
    database.execute(functions, user=OWNER)

    migrations.upgrade(database.url(OWNER))

    with database.as_role("authenticated", claims(ACME_USER)) as connection:
        workflows = "SELECT (public.workflow_definitions(log)).* FROM public.workflow_execution_logs AS log"
        logs = "SELECT public.workflow_execution_logs(d) FROM public.workflow_definitions AS d"
        assert {row["organization_id"] for row in get(connection, workflows)} == {str(ACME)}
        assert len(get(connection, logs)) == 120


# The database linter.


def findings(connection: psycopg.Connection[Any], lint: Lint) -> set[str]:
    return {finding for (finding,) in connection.execute(lint.query.encode())}


def is_ours(finding: str) -> bool:
    return finding.startswith(
        ("public.workflow_definitions", "public.workflow_execution_logs", "workflow_private.")
    )


@pytest.mark.parametrize("lint", LINTS, ids=str)
def test_a_lint_finds_of_ours_only_what_has_a_reason(live: Database, new: Database, lint: Lint) -> None:
    with live.connect(live.superuser) as beside, new.connect(new.superuser) as alone:
        found = {finding for finding in findings(beside, lint) if is_ours(finding)} | findings(alone, lint)

    assert found == set(lint.exceptions)


@pytest.mark.parametrize("lint", LINTS, ids=str)
def test_a_lint_finds_what_is_bad(live: Database, lint: Lint) -> None:
    with live.connect(live.superuser, autocommit=False) as connection:
        before = findings(connection, lint)
        connection.execute(lint.bad.encode())

        assert findings(connection, lint) - before == {lint.finding}
        connection.rollback()


def test_the_guide_names_each_lint_that_finds_something() -> None:
    table = GUIDE.partition("| lint |")[2]

    assert set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == {
        lint.name for lint in LINTS if lint.exceptions
    }
