"""Who sees and writes what: every kind of caller, every command, both tables.

Each test that sees nothing, or is refused, is valid only where somebody else sees it or may do it: the
data of `tests/application` has as many rows for Acme as for Globex, and the superuser is asked too.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias
from uuid import UUID

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege

import tests.application.states  # noqa: F401  registers the templates
from tests.application import (
    ACME,
    ACME_ADMIN,
    ACME_SUPER,
    ACME_USER,
    ACME_WORKFLOW,
    GLOBAL_WORKFLOW,
    GLOBEX,
    GLOBEX_SUPER,
    GLOBEX_USER,
    GLOBEX_WORKFLOW,
    INITECH,
    ORPHAN_SUPER,
    PEOPLE,
    UNKNOWN,
    Person,
)
from tests.databases import Database, Templates

Connection: TypeAlias = psycopg.Connection[Any]
Settings: TypeAlias = Mapping[str, str]

ORGANIZATIONS = (ACME, GLOBEX, None)
LOGS = {ACME: 120, GLOBEX: 120, None: 80}
DEFINITIONS = {ACME: 3, GLOBEX: 3, None: 2}
WORKFLOWS = {ACME: ACME_WORKFLOW, GLOBEX: GLOBEX_WORKFLOW, None: GLOBAL_WORKFLOW}
NAMES = {ACME: "Acme's", GLOBEX: "Globex's", None: "global"}

COUNT_LOGS = "SELECT organization_id, count(*) FROM workflow_execution_logs GROUP BY organization_id"
COUNT_DEFINITIONS = "SELECT organization_id, count(*) FROM workflow_definitions GROUP BY organization_id"

INSERT_LOG = "INSERT INTO workflow_execution_logs (workflow_id, status) VALUES (%(workflow)s, 'running')"
INSERT_DEFINITION = """
    INSERT INTO workflow_definitions
        (organization_id, name, natural_language_prompt, workflow_json, trigger_type)
    VALUES (%(organization)s, 'New', 'Do', '{}', 'manual')
"""
UPDATE_LOG = """
    UPDATE workflow_execution_logs SET status = 'success', execution_end = now()
    WHERE workflow_id = %(workflow)s
"""
UPDATE_DEFINITION = "UPDATE workflow_definitions SET name = 'Other' WHERE id = %(workflow)s"
NOTE_EXECUTION = "UPDATE workflow_definitions SET last_executed_at = now() WHERE id = %(workflow)s"
DELETE_LOG = "DELETE FROM workflow_execution_logs WHERE workflow_id = %(workflow)s"
DELETE_DEFINITION = "DELETE FROM workflow_definitions WHERE id = %(workflow)s"


def subject(person: Person | UUID) -> Settings:
    """The claims of a request, as PostgREST sets them today."""
    return {
        "request.jwt.claims": json.dumps({"sub": str(getattr(person, "id", person)), "role": "authenticated"})
    }


def worker(organization: UUID | str) -> Settings:
    return {"workflow.organization_id": str(organization)}


@dataclass(frozen=True)
class Caller:
    """Who asks, whose rows they shall see, whose logs write, whose definitions administer."""

    name: str
    role: str
    settings: Settings
    sees: Sequence[UUID | None] = ()
    logs: Sequence[UUID | None] = ()
    administers: Sequence[UUID | None] = ()

    def __str__(self) -> str:
        return self.name


def _person(person: Person) -> Caller:
    own = [person.organization] if person.organization else []
    sees = ORGANIZATIONS if person.sees_all else own
    administers = [person.administers] if person.administers else []
    return Caller(person.name, "authenticated", subject(person), sees, sees, administers)


USERS = [*map(_person, PEOPLE), Caller("user without claims", "authenticated", {})]
WORKERS = [
    Caller("worker of Acme", "workflow_worker", worker(ACME), [ACME], [ACME]),
    Caller("worker of Globex", "workflow_worker", worker(GLOBEX), [GLOBEX], [GLOBEX]),
    Caller("worker of Initech", "workflow_worker", worker(INITECH)),
    Caller("worker of nobody", "workflow_worker", {}),
    Caller("worker of an unknown organization", "workflow_worker", worker(UNKNOWN.id)),
    Caller("worker of an empty organization", "workflow_worker", worker("")),
    Caller("worker of a malformed organization", "workflow_worker", worker("acme")),
]
SERVICE = Caller("service role", "service_role", {}, ORGANIZATIONS, ORGANIZATIONS, ORGANIZATIONS)
ANONYMOUS = Caller("anonymous", "anon", {})
ANONYMOUS_WITH_CLAIMS = Caller("anonymous with claims", "anon", {**subject(ACME_SUPER), **worker(ACME)})

each_user = pytest.mark.parametrize("caller", USERS, ids=str)
each_worker = pytest.mark.parametrize("caller", WORKERS, ids=str)
each_reader = pytest.mark.parametrize("caller", [*USERS, *WORKERS, SERVICE], ids=str)
each_anonymous = pytest.mark.parametrize("caller", [ANONYMOUS, ANONYMOUS_WITH_CLAIMS], ids=str)
each_target = pytest.mark.parametrize("target", ORGANIZATIONS, ids=NAMES.get)


@pytest.fixture(scope="module")
def live(templates: Templates) -> Iterator[Database]:
    """The application's database after `upgrade head`, for tests that commit nothing."""
    database = templates.clone("adopted_upgraded")
    yield database
    templates.drop(database)


def counts(connection: Connection, query: str) -> dict[UUID | None, int]:
    return dict(connection.execute(query.encode()).fetchall())


def only(all_of: Mapping[UUID | None, int], organizations: Sequence[UUID | None]) -> dict[UUID | None, int]:
    return {organization: count for organization, count in all_of.items() if organization in organizations}


def rows_changed(database: Database, caller: Caller, statement: str, parameters: dict[str, object]) -> int:
    """How many rows the caller's statement changes, which is then rolled back."""
    with database.as_role(caller.role, caller.settings) as connection:
        return connection.execute(statement.encode(), parameters).rowcount


def rows_changed_by_superuser(database: Database, statement: str, parameters: dict[str, object]) -> int:
    """The same as somebody who may do everything: else a test of a refusal would prove nothing.

    Asked once, since no test that asks commits anything.
    """
    return _rows_changed_by_superuser(database, statement, tuple(parameters.items()))


@cache
def _rows_changed_by_superuser(
    database: Database, statement: str, parameters: tuple[tuple[str, object], ...]
) -> int:
    with database.connect(database.superuser, autocommit=False) as connection:
        changed = connection.execute(statement.encode(), dict(parameters)).rowcount
        connection.rollback()
        return changed


def assert_refused(database: Database, caller: Caller, statement: str, parameters: dict[str, object]) -> None:
    assert rows_changed_by_superuser(database, statement, parameters) > 0
    with pytest.raises(InsufficientPrivilege):
        rows_changed(database, caller, statement, parameters)


# Reading.


@each_reader
def test_a_caller_sees_these_logs_and_no_others(live: Database, caller: Caller) -> None:
    with live.as_role(caller.role, caller.settings) as connection:
        assert counts(connection, COUNT_LOGS) == only(LOGS, caller.sees)


@each_reader
def test_a_caller_sees_these_definitions_and_no_others(live: Database, caller: Caller) -> None:
    with live.as_role(caller.role, caller.settings) as connection:
        assert counts(connection, COUNT_DEFINITIONS) == only(DEFINITIONS, caller.sees)


def test_the_owner_sees_every_row(live: Database) -> None:
    with live.connect() as connection:
        assert counts(connection, COUNT_LOGS) == LOGS
        assert counts(connection, COUNT_DEFINITIONS) == DEFINITIONS


@each_anonymous
@pytest.mark.parametrize("query", [COUNT_LOGS, COUNT_DEFINITIONS], ids=["logs", "definitions"])
def test_anonymous_callers_may_not_read(live: Database, caller: Caller, query: str) -> None:
    with live.as_role(caller.role, caller.settings) as connection, pytest.raises(InsufficientPrivilege):
        connection.execute(query.encode())


@pytest.mark.parametrize("query", [COUNT_LOGS, COUNT_DEFINITIONS], ids=["logs", "definitions"])
def test_a_connection_that_took_no_role_may_not_read(live: Database, query: str) -> None:
    with live.connect("authenticator") as connection, pytest.raises(InsufficientPrivilege):
        connection.execute(query.encode())


# Writing logs.


@each_target
@pytest.mark.parametrize("caller", [*USERS, *WORKERS, SERVICE], ids=str)
def test_a_caller_inserts_logs_where_it_sees_them_and_nowhere_else(
    live: Database, caller: Caller, target: UUID | None
) -> None:
    parameters: dict[str, object] = {"workflow": WORKFLOWS[target]}

    if target in caller.logs:
        assert rows_changed(live, caller, INSERT_LOG, parameters) == 1
    else:
        assert_refused(live, caller, INSERT_LOG, parameters)


def test_a_log_inserted_by_a_user_comes_back_with_its_organization(live: Database) -> None:
    with live.as_role("authenticated", subject(ACME_USER)) as connection:
        returned = connection.execute(
            f"{INSERT_LOG} RETURNING organization_id".encode(), {"workflow": ACME_WORKFLOW}
        )

        assert returned.fetchall() == [(ACME,)]


@pytest.mark.parametrize("caller", [USERS[0], WORKERS[0]], ids=str)
def test_a_foreign_workflow_with_ones_own_organization_is_refused(live: Database, caller: Caller) -> None:
    with live.as_role(caller.role, caller.settings) as connection, pytest.raises(psycopg.Error) as refused:
        connection.execute(
            """
            INSERT INTO workflow_execution_logs (workflow_id, organization_id, status)
            VALUES (%s, %s, 'running')
            """,
            [GLOBEX_WORKFLOW, ACME],
        )

    assert refused.type in (
        InsufficientPrivilege,
        psycopg.errors.ForeignKeyViolation,
        psycopg.errors.CheckViolation,
    )


@pytest.mark.parametrize("statement", [UPDATE_LOG, DELETE_LOG], ids=["update", "delete"])
@each_user
def test_users_may_neither_update_nor_delete_logs(live: Database, caller: Caller, statement: str) -> None:
    assert_refused(live, caller, statement, {"workflow": ACME_WORKFLOW})


@each_target
@each_worker
def test_workers_end_runs_of_their_organization_and_of_no_other(
    live: Database, caller: Caller, target: UUID | None
) -> None:
    parameters: dict[str, object] = {"workflow": WORKFLOWS[target]}

    changed = rows_changed(live, caller, UPDATE_LOG, parameters)

    assert changed == (40 if target in caller.logs else 0)
    assert rows_changed_by_superuser(live, UPDATE_LOG, parameters) == 40


@pytest.mark.parametrize(
    "assignment",
    ["execution_end = now()", "status = 'error'", "execution_result = '{}'", "error_details = 'late'"],
)
def test_workers_update_what_ends_a_run(live: Database, assignment: str) -> None:
    statement = f"UPDATE workflow_execution_logs SET {assignment} WHERE workflow_id = %(workflow)s"

    assert rows_changed(live, WORKERS[0], statement, {"workflow": ACME_WORKFLOW}) == 40


@pytest.mark.parametrize(
    "assignment",
    [
        "id = -id",
        "workflow_id = workflow_id",
        "organization_id = organization_id",
        "execution_start = now()",
        "created_at = now()",
    ],
)
def test_workers_update_nothing_else_of_a_run(live: Database, assignment: str) -> None:
    statement = f"UPDATE workflow_execution_logs SET {assignment} WHERE workflow_id = %(workflow)s"

    with pytest.raises(InsufficientPrivilege):
        rows_changed(live, WORKERS[0], statement, {"workflow": ACME_WORKFLOW})


@each_worker
def test_workers_may_not_delete_logs(live: Database, caller: Caller) -> None:
    assert_refused(live, caller, DELETE_LOG, {"workflow": ACME_WORKFLOW})


# Writing definitions.


@each_target
@each_user
def test_admins_insert_definitions_in_their_own_organization_and_nobody_elsewhere(
    live: Database, caller: Caller, target: UUID | None
) -> None:
    parameters: dict[str, object] = {"organization": target}

    if target in caller.administers:
        assert rows_changed(live, caller, INSERT_DEFINITION, parameters) == 1
    else:
        assert_refused(live, caller, INSERT_DEFINITION, parameters)


@pytest.mark.parametrize("statement", [UPDATE_DEFINITION, DELETE_DEFINITION], ids=["update", "delete"])
@each_target
@each_user
def test_admins_change_definitions_of_their_own_organization_and_nobody_elses(
    live: Database, caller: Caller, target: UUID | None, statement: str
) -> None:
    parameters: dict[str, object] = {"workflow": WORKFLOWS[target]}

    changed = rows_changed(live, caller, statement, parameters)

    assert changed == (1 if target in caller.administers else 0)
    assert rows_changed_by_superuser(live, statement, parameters) == 1


@pytest.mark.parametrize("to", [GLOBEX, None], ids=["another organization", "all"])
@pytest.mark.parametrize("person", [ACME_ADMIN, ACME_SUPER], ids=str)
def test_admins_do_not_give_their_definitions_to_others(
    live: Database, person: Person, to: UUID | None
) -> None:
    statement = "UPDATE workflow_definitions SET organization_id = %(to)s WHERE id = %(workflow)s"

    assert_refused(live, _person(person), statement, {"to": to, "workflow": ACME_WORKFLOW})


def test_an_admin_who_deletes_a_definition_deletes_its_logs(live: Database) -> None:
    with live.as_role("authenticated", subject(ACME_ADMIN)) as connection:
        connection.execute(DELETE_DEFINITION.encode(), {"workflow": ACME_WORKFLOW})

        assert counts(connection, COUNT_LOGS) == {ACME: 80}


@each_target
@each_worker
def test_workers_note_executions_of_their_organizations_definitions_and_of_no_others(
    live: Database, caller: Caller, target: UUID | None
) -> None:
    parameters: dict[str, object] = {"workflow": WORKFLOWS[target]}

    changed = rows_changed(live, caller, NOTE_EXECUTION, parameters)

    assert changed == (1 if target in caller.logs else 0)
    assert rows_changed_by_superuser(live, NOTE_EXECUTION, parameters) == 1


@pytest.mark.parametrize(
    "statement", [INSERT_DEFINITION, UPDATE_DEFINITION, DELETE_DEFINITION], ids=["insert", "update", "delete"]
)
@each_worker
def test_workers_change_definitions_in_no_other_way(live: Database, caller: Caller, statement: str) -> None:
    assert_refused(live, caller, statement, {"organization": ACME, "workflow": ACME_WORKFLOW})


# Those for whom no policy decides.


@pytest.mark.parametrize(
    "statement",
    [INSERT_LOG, UPDATE_LOG, DELETE_LOG, INSERT_DEFINITION, UPDATE_DEFINITION, DELETE_DEFINITION],
    ids=[
        "insert log",
        "update log",
        "delete log",
        "insert definition",
        "update definition",
        "delete definition",
    ],
)
@each_anonymous
def test_anonymous_callers_write_nothing(live: Database, caller: Caller, statement: str) -> None:
    assert_refused(live, caller, statement, {"organization": ACME, "workflow": ACME_WORKFLOW})


@each_target
@pytest.mark.parametrize(
    "statement",
    [INSERT_LOG, UPDATE_LOG, DELETE_LOG, INSERT_DEFINITION, UPDATE_DEFINITION, DELETE_DEFINITION],
    ids=[
        "insert log",
        "update log",
        "delete log",
        "insert definition",
        "update definition",
        "delete definition",
    ],
)
def test_the_service_role_writes_everything(live: Database, target: UUID | None, statement: str) -> None:
    parameters: dict[str, object] = {"organization": target, "workflow": WORKFLOWS[target]}

    assert rows_changed(live, SERVICE, statement, parameters) == rows_changed_by_superuser(
        live, statement, parameters
    )


@pytest.mark.parametrize("role", ["anon", "authenticated", "workflow_worker", "service_role"])
@pytest.mark.parametrize(
    "statement",
    [
        "TRUNCATE workflow_execution_logs",
        "SELECT setval('workflow_execution_logs_id_seq', 1)",
        "ALTER TABLE workflow_execution_logs DISABLE ROW LEVEL SECURITY",
        "CREATE RULE r AS ON INSERT TO workflow_execution_logs DO ALSO NOTHING",
        "CREATE TABLE workflow_private.t ()",
        "DELETE FROM workflow_private.alembic_version",
    ],
)
def test_callers_may_not_reach_past_the_policies(live: Database, role: str, statement: str) -> None:
    with live.as_role(role, subject(ACME_SUPER)) as connection, pytest.raises(InsufficientPrivilege):
        connection.execute(statement.encode())


@pytest.mark.parametrize("role", ["anon", "public"])
def test_nothing_of_the_private_schema_is_for_everyone(live: Database, role: str) -> None:
    functions = """
        SELECT p.oid::regprocedure FROM pg_proc p
        WHERE p.pronamespace = 'workflow_private'::regnamespace
    """
    assert live.execute(functions)

    assert live.execute(f"{functions} AND has_function_privilege('{role}', p.oid, 'EXECUTE')") == []
    assert live.execute(f"SELECT has_schema_privilege('{role}', 'workflow_private', 'USAGE')") == [(False,)]


# Claims.

ACME_ID, GLOBEX_ID = str(ACME_USER.id), str(GLOBEX_USER.id)

IDENTIFIED: dict[str, tuple[Settings, UUID]] = {
    "sub alone": ({"request.jwt.claim.sub": ACME_ID}, ACME),
    "sub beside other claims": (
        {"request.jwt.claim.sub": ACME_ID, "request.jwt.claims": json.dumps({"sub": GLOBEX_ID})},
        ACME,
    ),
    "sub beside claims that are no JSON": (
        {"request.jwt.claim.sub": ACME_ID, "request.jwt.claims": "nonsense"},
        ACME,
    ),
    "empty sub beside claims": (
        {"request.jwt.claim.sub": "", "request.jwt.claims": json.dumps({"sub": ACME_ID})},
        ACME,
    ),
    "claims alone": ({"request.jwt.claims": json.dumps({"sub": ACME_ID})}, ACME),
    "uppercase": ({"request.jwt.claims": json.dumps({"sub": ACME_ID.upper()})}, ACME),
    "user_metadata naming another organization": (
        {
            "request.jwt.claims": json.dumps(
                {
                    "sub": ACME_ID,
                    "user_metadata": {
                        "organization_id": str(GLOBEX),
                        "role": "super_admin",
                        "user_role": "super_admin",
                        "sub": GLOBEX_ID,
                    },
                }
            )
        },
        ACME,
    ),
    "claims naming another organization and role": (
        {
            "request.jwt.claims": json.dumps(
                {
                    "sub": ACME_ID,
                    "organization_id": str(GLOBEX),
                    "role": "super_admin",
                    "user_role": "super_admin",
                    "app_metadata": {"organization_id": str(GLOBEX), "role": "super_admin"},
                }
            )
        },
        ACME,
    ),
    "a seal of nobody's beside": (
        {**subject(ACME_USER), "workflow.caller": "0" * 64 + f"{{{GLOBEX},super_admin}}"},
        ACME,
    ),
    "a malformed seal beside": ({**subject(ACME_USER), "workflow.caller": "{super_admin"}, ACME),
    "a worker's setting beside": ({**subject(ACME_USER), **worker(GLOBEX)}, ACME),
    "a malformed worker's setting beside": ({**subject(ACME_USER), **worker("globex")}, ACME),
}

NOBODY: dict[str, Settings] = {
    "nothing": {},
    "empty": {"request.jwt.claim.sub": "", "request.jwt.claims": ""},
    "blank": {"request.jwt.claims": " "},
    "no JSON": {"request.jwt.claims": "nonsense"},
    "cut JSON": {"request.jwt.claims": f'{{"sub": "{ACME_ID}"'},
    "null": {"request.jwt.claims": "null"},
    "an empty object": {"request.jwt.claims": "{}"},
    "a string": {"request.jwt.claims": json.dumps(ACME_ID)},
    "a list": {"request.jwt.claims": json.dumps(["sub", ACME_ID])},
    "a list of claims": {"request.jwt.claims": json.dumps([{"sub": ACME_ID}])},
    "a number": {"request.jwt.claims": "1"},
    "sub null": {"request.jwt.claims": '{"sub": null}'},
    "sub empty": {"request.jwt.claims": '{"sub": ""}'},
    "sub no uuid": {"request.jwt.claims": '{"sub": "acme"}'},
    "sub a number": {"request.jwt.claims": '{"sub": 1}'},
    "sub an object": {"request.jwt.claims": json.dumps({"sub": {"sub": ACME_ID}})},
    "sub a list": {"request.jwt.claims": json.dumps({"sub": [ACME_ID]})},
    "sub with a NUL": {"request.jwt.claims": '{"sub": "\\u0000"}'},
    "sub in the wrong case": {"request.jwt.claims": json.dumps({"SUB": ACME_ID})},
    "the plain sub no uuid": {"request.jwt.claim.sub": "acme"},
    "the plain sub no uuid, beside claims": {
        "request.jwt.claim.sub": "acme",
        "request.jwt.claims": json.dumps({"sub": ACME_ID}),
    },
    "user_metadata alone": {
        "request.jwt.claims": json.dumps({"user_metadata": {"sub": ACME_ID, "organization_id": str(ACME)}})
    },
    "a seal of nobody's": {"workflow.caller": "0" * 64 + f"{{{ACME},super_admin}}"},
    "an organization for the user": {"request.jwt.claims": json.dumps({"sub": str(ACME)})},
    "a worker's setting": worker(ACME),
    "a worker's setting beside an unknown user": {**subject(UNKNOWN), **worker(ACME)},
}  # fmt: skip

each_nobody = pytest.mark.parametrize("settings", NOBODY.values(), ids=NOBODY)


@pytest.mark.parametrize(("settings", "organization"), IDENTIFIED.values(), ids=IDENTIFIED)
def test_these_claims_name_a_user_of_one_organization(
    live: Database, settings: Settings, organization: UUID
) -> None:
    with live.as_role("authenticated", settings) as connection:
        assert counts(connection, COUNT_LOGS) == {organization: 120}


@each_nobody
def test_these_claims_name_nobody_who_sees_logs(live: Database, settings: Settings) -> None:
    with live.as_role("authenticated", settings) as connection:
        assert counts(connection, COUNT_LOGS) == {}


@each_nobody
def test_these_claims_name_nobody_who_sees_definitions(live: Database, settings: Settings) -> None:
    with live.as_role("authenticated", settings) as connection:
        assert counts(connection, COUNT_DEFINITIONS) == {}


@each_nobody
def test_these_claims_name_nobody_who_inserts_logs(live: Database, settings: Settings) -> None:
    caller = Caller("nobody", "authenticated", settings)

    assert_refused(live, caller, INSERT_LOG, {"workflow": ACME_WORKFLOW})


@each_nobody
def test_these_claims_name_nobody_who_administers(live: Database, settings: Settings) -> None:
    caller = Caller("nobody", "authenticated", settings)

    assert rows_changed(live, caller, UPDATE_DEFINITION, {"workflow": ACME_WORKFLOW}) == 0


@pytest.mark.parametrize(
    ("settings", "sees"),
    [
        (subject(GLOBEX_SUPER), {}),
        ({**subject(GLOBEX_SUPER), **worker(ACME)}, {ACME: 120}),
        ({"request.jwt.claims": "nonsense", **worker(ACME)}, {ACME: 120}),
        ({**subject(GLOBEX_SUPER), **worker("")}, {}),
    ],
    ids=["claims alone", "claims beside", "malformed claims beside", "claims beside an empty setting"],
)
def test_a_worker_is_never_taken_for_a_user(
    live: Database, settings: Settings, sees: dict[UUID | None, int]
) -> None:
    with live.as_role("workflow_worker", settings) as connection:
        assert counts(connection, COUNT_LOGS) == sees


def test_a_setting_that_was_local_to_an_earlier_transaction_names_nobody(live: Database) -> None:
    with live.connect("authenticator", autocommit=False) as connection:
        for role, settings in (("authenticated", subject(ACME_USER)), ("workflow_worker", worker(ACME))):
            for name, value in settings.items():
                connection.execute("SELECT set_config(%s, %s, true)", (name, value))
            connection.execute(f"SET LOCAL ROLE {role}".encode())
            assert counts(connection, COUNT_LOGS) == {ACME: 120}
            connection.commit()

            connection.execute(f"SET LOCAL ROLE {role}".encode())
            assert counts(connection, COUNT_LOGS) == {}
            connection.commit()


def test_one_connection_serves_one_user_after_another(live: Database) -> None:
    with live.connect("authenticator", autocommit=False) as connection:
        for person, sees in ((ACME_USER, {ACME: 120}), (GLOBEX_USER, {GLOBEX: 120}), (ORPHAN_SUPER, LOGS)):
            for name, value in subject(person).items():
                connection.execute("SELECT set_config(%s, %s, true)", (name, value))
            connection.execute("SET LOCAL ROLE authenticated")
            assert counts(connection, COUNT_LOGS) == sees
            connection.commit()


# Where the role of a profile stands.


@pytest.mark.parametrize("person", PEOPLE, ids=str)
def test_the_role_is_read_from_user_role_where_that_is_its_name(
    clone: Callable[[str], Database], person: Person
) -> None:
    database = clone("user_role_upgraded")

    with database.as_role("authenticated", subject(person)) as connection:
        assert counts(connection, COUNT_LOGS) == only(LOGS, _person(person).sees)


def test_the_role_is_still_read_once_its_column_is_renamed(clone: Callable[[str], Database]) -> None:
    database = clone("adopted_upgraded")

    database.execute("ALTER TABLE profiles RENAME COLUMN role TO user_role")

    with database.as_role("authenticated", subject(ACME_SUPER)) as connection:
        assert counts(connection, COUNT_LOGS) == LOGS
    assert rows_changed(database, _person(ACME_ADMIN), UPDATE_DEFINITION, {"workflow": ACME_WORKFLOW}) == 1


def test_user_role_decides_where_both_columns_are(clone: Callable[[str], Database]) -> None:
    database = clone("adopted_upgraded")

    database.execute("ALTER TABLE profiles ADD COLUMN user_role text DEFAULT 'user'")

    with database.as_role("authenticated", subject(ACME_SUPER)) as connection:
        assert counts(connection, COUNT_LOGS) == {ACME: 120}


def test_a_user_who_changes_organization_sees_the_other_ones_rows_only(
    clone: Callable[[str], Database],
) -> None:
    database = clone("adopted_upgraded")

    database.execute(
        "UPDATE profiles SET organization_id = %(to)s WHERE id = %(id)s", {"to": GLOBEX, "id": ACME_USER.id}
    )

    with database.as_role("authenticated", subject(ACME_USER)) as connection:
        assert counts(connection, COUNT_LOGS) == {GLOBEX: 120}


# Callers who make objects of their own.


@pytest.fixture
def user(live: Database) -> Iterator[Connection]:
    """A request of a user of Acme."""
    with live.as_role("authenticated", subject(ACME_USER)) as connection:
        yield connection


@pytest.fixture
def acme_worker(live: Database) -> Iterator[Connection]:
    """A transaction of a worker of Acme."""
    with live.as_role("workflow_worker", worker(ACME)) as connection:
        yield connection


TEMPORARY_TABLES = f"""
    CREATE TEMP TABLE profiles AS
        SELECT '{ACME_USER.id}'::uuid AS id, '{GLOBEX}'::uuid AS organization_id,
            'super_admin' AS role, 'super_admin' AS user_role;
    CREATE TEMP TABLE organizations AS SELECT '{GLOBEX}'::uuid AS id;
    CREATE TEMP TABLE workflow_definitions AS
        SELECT '{GLOBEX_WORKFLOW}'::uuid AS id, '{ACME}'::uuid AS organization_id;
    CREATE TEMP TABLE alembic_version AS SELECT 'none' AS version_num;
    GRANT ALL ON profiles, organizations, workflow_definitions, alembic_version TO PUBLIC;
"""


def _types(name: str) -> str:
    """A domain that takes the place of a built-in type, and tells when a value is made to it."""
    return f"""
        CREATE FUNCTION pg_temp.tell_{name}(value pg_catalog.{name}) RETURNS pg_catalog.bool
            LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'ran as %', current_user; END $$;
        CREATE DOMAIN pg_temp.{name} AS pg_catalog.{name} CHECK (pg_temp.tell_{name}(VALUE));
    """


def test_a_temporary_domain_does_run_where_nothing_guards_against_it(user: Connection) -> None:
    user.execute(_types("uuid").encode())

    with pytest.raises(psycopg.Error, match="ran as authenticated"):
        user.execute(f"SELECT '{ACME}'::uuid".encode())


def test_temporary_tables_do_not_change_what_a_user_sees(user: Connection) -> None:
    user.execute(TEMPORARY_TABLES.encode())

    assert counts(user, COUNT_LOGS.replace("FROM ", "FROM public.")) == {ACME: 120}


def test_temporary_tables_do_not_change_what_a_worker_sees(acme_worker: Connection) -> None:
    acme_worker.execute(TEMPORARY_TABLES.encode())

    assert counts(acme_worker, COUNT_LOGS.replace("FROM ", "FROM public.")) == {ACME: 120}


def test_temporary_tables_do_not_change_whose_log_is_written(user: Connection) -> None:
    user.execute(TEMPORARY_TABLES.encode())

    with pytest.raises(InsufficientPrivilege):
        user.execute(INSERT_LOG.replace("INTO ", "INTO public.").encode(), {"workflow": GLOBEX_WORKFLOW})


def test_temporary_tables_do_not_make_an_administrator(user: Connection) -> None:
    user.execute(TEMPORARY_TABLES.encode())

    changed = user.execute(
        "UPDATE public.workflow_definitions SET name = 'Other' WHERE id = %s", [ACME_WORKFLOW]
    ).rowcount

    assert changed == 0


@pytest.mark.parametrize("name", ["uuid", "text", "jsonb", "bool"])
def test_temporary_types_run_nothing_when_a_user_reads_or_writes(user: Connection, name: str) -> None:
    user.execute(_types(name).encode())

    assert user.execute("SELECT count(*) FROM public.workflow_execution_logs").fetchone() == (120,)
    assert user.execute("SELECT count(*) FROM public.workflow_definitions").fetchone() == (3,)
    assert user.execute(INSERT_LOG.encode(), {"workflow": ACME_WORKFLOW}).rowcount == 1
    assert user.execute(UPDATE_DEFINITION.encode(), {"workflow": ACME_WORKFLOW}).rowcount == 0


@pytest.mark.parametrize("name", ["uuid", "text", "jsonb", "bool"])
def test_temporary_types_run_nothing_when_an_admin_writes(live: Database, name: str) -> None:
    with live.as_role("authenticated", subject(ACME_ADMIN)) as connection:
        connection.execute(_types(name).encode())

        assert connection.execute(UPDATE_DEFINITION.encode(), {"workflow": ACME_WORKFLOW}).rowcount == 1
        assert connection.execute(DELETE_DEFINITION.encode(), {"workflow": ACME_WORKFLOW}).rowcount == 1


@pytest.mark.parametrize("name", ["uuid", "text", "jsonb", "bool"])
def test_temporary_types_run_nothing_when_a_worker_reads_or_writes(
    acme_worker: Connection, name: str
) -> None:
    acme_worker.execute(_types(name).encode())

    assert acme_worker.execute("SELECT count(*) FROM public.workflow_execution_logs").fetchone() == (120,)
    assert acme_worker.execute(INSERT_LOG.encode(), {"workflow": ACME_WORKFLOW}).rowcount == 1
    assert acme_worker.execute(UPDATE_LOG.encode(), {"workflow": ACME_WORKFLOW}).rowcount == 41
    assert acme_worker.execute(NOTE_EXECUTION.encode(), {"workflow": ACME_WORKFLOW}).rowcount == 1


@pytest.mark.parametrize("name", ["uuid", "text", "jsonb", "bool"])
def test_temporary_types_run_nothing_when_the_service_moves_a_definition(live: Database, name: str) -> None:
    with live.as_role("service_role") as connection:
        connection.execute(_types(name).encode())

        connection.execute(
            "UPDATE public.workflow_definitions SET organization_id = %s WHERE id = %s",
            [GLOBEX, ACME_WORKFLOW],
        )
        carried = connection.execute(
            """
            SELECT count(*) FROM public.workflow_execution_logs
            WHERE workflow_id = %s AND organization_id = %s
            """,
            [ACME_WORKFLOW, GLOBEX],
        )

        assert carried.fetchone() == (40,)


FALSE_OPERATORS = f"""
    CREATE FUNCTION false_friends.yes(uuid, uuid) RETURNS boolean LANGUAGE sql AS 'SELECT true';
    CREATE FUNCTION false_friends.yes(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT true';
    CREATE OPERATOR false_friends.= (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = false_friends.yes);
    CREATE OPERATOR false_friends.= (LEFTARG = text, RIGHTARG = text, FUNCTION = false_friends.yes);
    CREATE FUNCTION false_friends.current_setting(text, boolean) RETURNS text LANGUAGE sql
        AS $$ SELECT CASE WHEN $1 LIKE 'workflow.%%' THEN '{GLOBEX}' ELSE '{GLOBEX_SUPER.id}' END $$;
    CREATE FUNCTION false_friends.current_setting(text) RETURNS text LANGUAGE sql
        AS $$ SELECT false_friends.current_setting($1, true) $$;
    CREATE FUNCTION false_friends.to_jsonb(anyelement) RETURNS jsonb LANGUAGE sql
        AS $$ SELECT '{{"role": "super_admin", "user_role": "super_admin"}}'::jsonb $$;
    SET LOCAL search_path = false_friends, pg_catalog, public;
"""


@pytest.fixture
def false_friends(clone: Callable[[str], Database]) -> Database:
    """The application's database, with a schema in which everyone may make functions and operators."""
    database = clone("adopted_upgraded")
    database.execute("CREATE SCHEMA false_friends; GRANT ALL ON SCHEMA false_friends TO PUBLIC")
    return database


def test_false_operators_do_work_where_nothing_guards_against_them(false_friends: Database) -> None:
    with false_friends.as_role("authenticated", subject(ACME_USER)) as connection:
        connection.execute(FALSE_OPERATORS.encode())

        assert connection.execute(f"SELECT '{ACME}'::uuid = '{GLOBEX}'::uuid".encode()).fetchone() == (True,)


@pytest.mark.parametrize("caller", [USERS[0], WORKERS[0]], ids=str)
def test_false_operators_do_not_change_what_a_caller_sees(false_friends: Database, caller: Caller) -> None:
    with false_friends.as_role(caller.role, caller.settings) as connection:
        connection.execute(FALSE_OPERATORS.encode())

        assert counts(connection, COUNT_LOGS) == {ACME: 120}
        assert counts(connection, COUNT_DEFINITIONS) == {ACME: 3}


@pytest.mark.parametrize("caller", [USERS[0], WORKERS[0]], ids=str)
def test_false_operators_do_not_change_whose_log_is_written(false_friends: Database, caller: Caller) -> None:
    with false_friends.as_role(caller.role, caller.settings) as connection:
        connection.execute(FALSE_OPERATORS.encode())

        with pytest.raises(InsufficientPrivilege):
            connection.execute(INSERT_LOG.encode(), {"workflow": GLOBEX_WORKFLOW})


def test_false_operators_do_not_make_an_administrator(false_friends: Database) -> None:
    with false_friends.as_role("authenticated", subject(ACME_USER)) as connection:
        connection.execute(FALSE_OPERATORS.encode())

        assert connection.execute("UPDATE workflow_definitions SET name = 'Other'").rowcount == 0


def test_a_caller_who_writes_a_definition_through_false_operators_carries_no_foreign_log(
    false_friends: Database,
) -> None:
    with false_friends.as_role("service_role") as connection:
        connection.execute(FALSE_OPERATORS.encode())
        connection.execute(
            "UPDATE workflow_definitions SET organization_id = %s WHERE id OPERATOR(pg_catalog.=) %s",
            [INITECH, ACME_WORKFLOW],
        )

        assert counts(connection, COUNT_LOGS) == {ACME: 80, GLOBEX: 120, INITECH: 40, None: 80}


@pytest.mark.parametrize("table", ["workflow_execution_logs", "workflow_definitions"])
@pytest.mark.parametrize("caller", [USERS[0], WORKERS[0]], ids=str)
def test_a_cheap_function_of_the_callers_is_shown_no_foreign_row(
    live: Database, caller: Caller, table: str
) -> None:
    shown: set[str] = set()
    with live.as_role(caller.role, caller.settings) as connection:
        connection.add_notice_handler(lambda notice: shown.add(str(notice.message_primary)))
        connection.execute(
            """
            CREATE FUNCTION pg_temp.show(uuid) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS
                $$ BEGIN RAISE NOTICE '%', $1; RETURN true; END $$
            """
        )
        connection.execute(f"SELECT count(*) FROM {table} WHERE pg_temp.show(organization_id)".encode())

    assert shown == {str(ACME)}


def test_a_foreign_row_cannot_be_told_by_a_conflict(user: Connection) -> None:
    foreign = """
        INSERT INTO workflow_execution_logs (id, workflow_id, status) VALUES (%s, %s, 'running')
        ON CONFLICT DO NOTHING
    """

    # Its id is taken, by a row that the caller does not see: refused for what it says of itself all the same.
    with pytest.raises(InsufficientPrivilege):
        user.execute(foreign.encode(), [4, GLOBEX_WORKFLOW])
