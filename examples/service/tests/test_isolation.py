"""Nothing that a tenant sends, and nothing that goes wrong, shows one tenant what is another's.

Each test sees first that the row is there for its owner. The service has one connection: each request is
given the one that another tenant's has just used.
"""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from uuid import UUID

import httpx
import jwt
import psycopg
import pytest
from conftest import SECRET, Service, Tenant, token
from sqlalchemy import make_url, select
from workflow_models import WorkflowDefinition
from workflow_models.tenancy import TenantSessionmaker
from workflow_models.testing import Database, Rows, assert_invisible

from workflow_service.dependencies import Session
from workflow_service.models import WorkflowComment

READS = [
    "/workflows/{0.workflow.id}",
    "/workflows/{0.workflow.id}/comments",
    "/executions/{0.failed.id}",
    "/executions?workflow_id={0.workflow.id}",
    "/executions?workflow_id={0.workflow.id}&status=error",
    "/executions/failed?workflow_id={0.workflow.id}",
    "/executions/export?workflow_id={0.workflow.id}",
]


def add_comment(client: httpx.Client, tenant: Tenant) -> None:
    added = client.post(f"/workflows/{tenant.workflow.id}/comments", json={"body": "Between us"})
    assert added.status_code == 201


def shows_nothing_of(tenant: Tenant, answer: httpx.Response) -> bool:
    return not any(text in answer.text for text in (*tenant.texts, "Between us"))


def sees_only_its_own(client: httpx.Client, own: Tenant, other: Tenant) -> bool:
    """Whether the lists of this tenant are whole, and hold nothing of the other."""
    answers = [client.get(path) for path in ("/workflows", "/executions", "/executions/failed")]
    counts = client.get("/executions/summary").json()
    return (
        [each["name"] for each in answers[0].json()] == [own.workflow.name]
        and [run["id"] for run in answers[1].json()["executions"]] == [own.failed.id, own.succeeded.id]
        and [run["id"] for run in answers[2].json()["executions"]] == [own.failed.id]
        and (counts["success"], counts["error"]) == (1, 1)
        and all(shows_nothing_of(other, answer) for answer in answers)
    )


def test_an_id_of_another_tenant_in_path_or_query_shows_nothing(
    as_acme: httpx.Client, as_globex: httpx.Client, acme: Tenant
) -> None:
    add_comment(as_acme, acme)
    paths = [path.format(acme) for path in READS]
    assert [path for path in paths if shows_nothing_of(acme, as_acme.get(path))] == []

    answers = [as_globex.get(path) for path in paths]

    # As what does not exist is answered.
    nowhere = [as_globex.get(path.replace(str(acme.workflow.id), str(UUID(int=1)))) for path in paths]
    assert [answer.json() for answer in answers] == [answer.json() for answer in nowhere]
    assert all(shows_nothing_of(acme, answer) for answer in answers)


def test_a_cursor_of_another_tenant_shows_nothing_of_it(
    as_acme: httpx.Client, as_globex: httpx.Client, acme: Tenant, globex: Tenant
) -> None:
    before = as_globex.get("/executions", params={"limit": 1}).json()["next"]
    assert before

    seen = as_acme.get("/executions", params={"before": before}).json()["executions"]

    assert {run["id"] for run in seen} == {acme.succeeded.id, acme.failed.id}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", "/workflows/{0.workflow.id}", {"name": "Mine"}),
        ("POST", "/workflows/{0.workflow.id}/comments", {"body": "Mine"}),
        ("POST", "/runs", {"workflow_id": "{0.workflow.id}"}),
    ],
)
def test_an_id_of_another_tenant_in_a_write_writes_nothing(
    as_acme: httpx.Client, as_globex: httpx.Client, acme: Tenant, method: str, path: str, body: dict[str, str]
) -> None:
    def everything() -> list[Any]:
        paths = ("/workflows", f"/workflows/{acme.workflow.id}/comments", "/executions")
        return [as_acme.get(path).json() for path in paths]

    add_comment(as_acme, acme)
    before = everything()
    assert json.dumps(before).count(acme.workflow.name) == 1

    given = {name: value.format(acme) for name, value in body.items()}
    answer = as_globex.request(method, path.format(acme), json=given)

    assert answer.status_code == 404
    assert everything() == before


def test_an_organization_in_a_body_is_refused(
    as_acme: httpx.Client, as_globex: httpx.Client, acme: Tenant, globex: Tenant
) -> None:
    new = {"name": "Foisted", "natural_language_prompt": "Do it", "workflow_json": {"steps": []}}
    assert as_acme.post("/workflows", json=new).status_code == 201

    answer = as_globex.post("/workflows", json={**new, "organization_id": str(acme.organization)})

    assert answer.status_code == 422
    assert [each["name"] for each in as_acme.get("/workflows").json()] == ["Foisted", acme.workflow.name]
    assert sees_only_its_own(as_globex, globex, acme)


HEADERS = ["X-Organization-Id", "X-User-Id", "X-Forwarded-User", "X-Tenant", "Role", "request.jwt.claim.sub"]


@pytest.mark.parametrize("claims", ["organization", "admin", "role"])
def test_a_forged_header_changes_nothing(
    as_acme: httpx.Client, as_globex: httpx.Client, acme: Tenant, globex: Tenant, claims: str
) -> None:
    assert sees_only_its_own(as_acme, acme, globex)

    as_globex.headers.update(dict.fromkeys(HEADERS, str(getattr(acme, claims, "service_role"))))

    assert sees_only_its_own(as_globex, globex, acme)


FORGED: dict[str, Callable[[UUID], str]] = {
    "of another key": lambda user: token(user, "k" * 32),
    "of no algorithm": lambda user: token(user, "", "none"),
    "of another algorithm": lambda user: token(user, algorithm="HS512"),
    "without a signature": lambda user: token(user).rpartition(".")[0] + ".",
    "with the claims of another": lambda user: ".".join(
        part.split(".")[index]
        for index, part in enumerate((token(UUID(int=0)), token(user), token(UUID(int=0))))
    ),
    "that has expired": lambda user: jwt.encode({"sub": str(user), "exp": 1}, SECRET),
    "that never expires": lambda user: jwt.encode({"sub": str(user)}, SECRET),
    "of no user": lambda user: token("service_role"),
}


def test_a_forged_token_is_nobody(service: Service, as_acme: httpx.Client, acme: Tenant) -> None:
    path = f"/workflows/{acme.workflow.id}"
    assert as_acme.get(path).json()["name"] == acme.workflow.name

    with service.client() as forger:
        answers = {
            kind: forger.get(path, headers={"Authorization": f"Bearer {forge(acme.admin)}"})
            for kind, forge in FORGED.items()
        }

    assert {kind: answer.status_code for kind, answer in answers.items()} == dict.fromkeys(FORGED, 401)
    assert all(shows_nothing_of(acme, answer) for answer in answers.values())


def test_who_has_no_token_or_no_profile_sees_nothing(
    service: Service, as_acme: httpx.Client, acme: Tenant, workflow_rows: Rows
) -> None:
    path = f"/workflows/{acme.workflow.id}"
    assert as_acme.get(path).json()["name"] == acme.workflow.name

    for user, status in ((None, 401), (UUID(int=1), 403), (workflow_rows.user(None), 403)):
        with service.client(user) as client:
            assert client.get(path).status_code == status


def test_parallel_requests_on_one_connection_see_their_own(
    service: Service, workflow_database: Database, acme: Tenant, globex: Tenant
) -> None:
    async def ask(client: httpx.AsyncClient, own: Tenant, path: str) -> httpx.Response:
        return await client.get(path, headers={"Authorization": f"Bearer {token(own.admin)}"})

    async def ask_all() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=service.url, timeout=60) as client:
            asked = (
                ask(client, own, path)
                for _ in range(25)
                for own in (acme, globex)
                for path in ("/workflows", "/executions")
            )
            return await asyncio.gather(*asked)

    answers = asyncio.run(ask_all())

    assert {answer.status_code for answer in answers} == {200}
    for index, answer in enumerate(answers):
        own, other = (acme, globex) if index % 4 < 2 else (globex, acme)
        assert str(own.workflow.id) in answer.text
        assert shows_nothing_of(other, answer)
    assert connections(workflow_database) == 1


def test_an_exception_in_mid_request_leaves_nothing_behind(
    service: Service,
    as_acme: httpx.Client,
    as_globex: httpx.Client,
    acme: Tenant,
    globex: Tenant,
) -> None:
    seen: list[str] = []

    async def fail(session: Session) -> None:
        workflow = (await session.scalars(select(WorkflowDefinition))).one()
        seen.append(workflow.name)
        workflow.name = "Half done"
        await session.flush()
        raise RuntimeError("in mid-request")

    service.app.add_api_route("/fail", fail)

    assert as_acme.get("/fail").status_code == 500
    assert sees_only_its_own(as_globex, globex, acme)
    assert sees_only_its_own(as_acme, acme, globex)
    assert seen == [acme.workflow.name]


@contextmanager
def everything_locked(database: Database) -> Iterator[psycopg.Connection[Any]]:
    """Whoever reads a run waits, until the block ends."""
    with psycopg.connect(libpq(database.url)) as owner:
        owner.execute("LOCK TABLE workflow_execution_logs IN ACCESS EXCLUSIVE MODE")
        yield owner
        owner.rollback()


def libpq(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def waiting(database: Database, blocker: psycopg.Connection[Any]) -> list[int]:
    """Who waits for the blocker."""
    with psycopg.connect(libpq(database.admin_url), autocommit=True) as observer:
        found = observer.execute(
            "SELECT pid FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid))",
            [blocker.info.backend_pid],
        )
        return [pid for (pid,) in found]


def connections(database: Database) -> int:
    """Of the service."""
    with psycopg.connect(libpq(database.admin_url)) as observer:
        (number,) = observer.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND usename = %s",
            [database.name, make_url(database.service_url).username],
        ).fetchone() or (0,)
        return int(number)


def until(condition: Callable[[], Any]) -> Any:
    """What the condition gives, asked until it is true; a test that waits for ever runs into its timeout."""
    while not (found := condition()):
        pass
    return found


def test_a_client_that_leaves_in_mid_request_leaves_nothing_behind(
    service: Service,
    workflow_database: Database,
    as_acme: httpx.Client,
    as_globex: httpx.Client,
    acme: Tenant,
    globex: Tenant,
) -> None:
    path = f"/executions/export?workflow_id={acme.workflow.id}"
    assert not shows_nothing_of(acme, as_acme.get(path))

    with everything_locked(workflow_database) as blocker:
        with as_acme.stream("GET", path) as answer:
            assert answer.status_code == 200
            until(lambda: waiting(workflow_database, blocker))
        # The request is cancelled, and not only at its end, which the lock holds off.
        until(lambda: not waiting(workflow_database, blocker))

    assert sees_only_its_own(as_globex, globex, acme)
    assert sees_only_its_own(as_acme, acme, globex)


def test_a_killed_backend_in_mid_request_leaves_nothing_behind(
    workflow_database: Database,
    as_acme: httpx.Client,
    as_globex: httpx.Client,
    acme: Tenant,
    globex: Tenant,
) -> None:
    path = f"/executions/{acme.failed.id}"
    assert not shows_nothing_of(acme, as_acme.get(path))
    answers: list[httpx.Response] = []

    with everything_locked(workflow_database) as blocker:
        request = threading.Thread(target=lambda: answers.append(as_acme.get(path)))
        request.start()
        pids = until(lambda: waiting(workflow_database, blocker))
        with psycopg.connect(libpq(workflow_database.admin_url), autocommit=True) as admin:
            admin.execute("SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) AS pid", [pids])
        request.join()

    assert [answer.status_code for answer in answers] == [503]
    assert shows_nothing_of(acme, answers[0])
    assert sees_only_its_own(as_globex, globex, acme)
    assert sees_only_its_own(as_acme, acme, globex)


def test_a_run_of_the_worker_is_seen_by_its_own_tenant(
    as_acme: httpx.Client, as_globex: httpx.Client, acme: Tenant, globex: Tenant
) -> None:
    for client, own in ((as_acme, acme), (as_globex, globex)):
        body = {"workflow_id": str(own.workflow.id), "trigger_data": {"name": f"Guest of {own.organization}"}}
        assert client.post("/runs", json=body).status_code == 202

    def results(client: httpx.Client) -> list[Any]:
        ended = client.get("/executions?status=success").json()["executions"]
        return [run["execution_result"] for run in ended if run["execution_result"]]

    for client, own in ((as_acme, acme), (as_globex, globex)):
        until(partial(results, client))
        assert results(client) == [{"greet": f"Hello Guest of {own.organization}"}]


def test_a_comment_is_invisible_to_another_tenant(
    as_acme: httpx.Client,
    acme: Tenant,
    globex: Tenant,
    workflow_sessions: TenantSessionmaker,
) -> None:
    add_comment(as_acme, acme)

    with (
        workflow_sessions(user=acme.admin) as owner,
        workflow_sessions(user=globex.admin) as stranger,
    ):
        comment = owner.scalars(select(WorkflowComment)).one()
        assert_invisible(select(WorkflowComment), row=comment, to=stranger, owner=owner)
