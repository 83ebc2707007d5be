"""What a tenant does with the service."""

from typing import Any

import httpx
import pytest
from conftest import Service, Tenant
from workflow_models import TriggerType, WorkflowDefinition
from workflow_models.testing import Rows

from workflow_service.dependencies import Session

NEW = {"name": "New", "natural_language_prompt": "Do it", "workflow_json": {"steps": []}}


def until_ended(client: httpx.Client, workflow_id: str) -> dict[str, Any]:
    """The only run of a workflow, asked for until it has ended."""
    while True:
        found = client.get("/executions", params={"workflow_id": workflow_id}).json()["executions"]
        if found and found[0]["status"] != "running":
            (run,) = found
            return dict(run)


def test_a_workflow_is_created_renamed_and_listed(as_acme: httpx.Client, acme: Tenant) -> None:
    created = as_acme.post("/workflows", json=NEW)
    assert created.status_code == 201
    path = f"/workflows/{created.json()['id']}"

    assert as_acme.patch(path, json={"name": "Renamed"}).json()["name"] == "Renamed"
    assert as_acme.get(path).json()["name"] == "Renamed"
    assert [each["name"] for each in as_acme.get("/workflows").json()] == ["Renamed", acme.workflow.name]


def test_a_member_reads_workflows_and_changes_none(
    service: Service, acme: Tenant, workflow_rows: Rows
) -> None:
    path = f"/workflows/{acme.workflow.id}"
    with service.client(workflow_rows.user(acme.organization)) as member:
        assert member.get(path).json()["name"] == acme.workflow.name
        assert member.patch(path, json={"name": "Mine"}).status_code == 403
        assert member.post("/workflows", json=NEW).status_code == 403
        assert member.get(path).json()["name"] == acme.workflow.name


def test_a_run_is_made_by_the_worker(as_acme: httpx.Client) -> None:
    steps = {"steps": [{"action": "greet"}, {"action": "count"}]}
    workflow = as_acme.post("/workflows", json={**NEW, "workflow_json": steps}).json()["id"]
    handed_over = {"name": "Ada", "items": [1, 2]}

    answer = as_acme.post("/runs", json={"workflow_id": workflow, "trigger_data": handed_over})
    assert answer.status_code == 202
    run = until_ended(as_acme, workflow)

    assert (run["status"], run["trigger_data"]) == ("success", handed_over)
    assert run["execution_result"] == {"greet": "Hello Ada", "count": 2}
    assert as_acme.get(f"/executions/{run['id']}").json() == run
    assert as_acme.get(f"/workflows/{workflow}").json()["last_executed_at"] is not None


def test_a_run_that_fails_is_recorded_and_the_worker_goes_on(as_acme: httpx.Client) -> None:
    failing, working = (
        as_acme.post("/workflows", json={**NEW, "workflow_json": {"steps": steps}}).json()["id"]
        for steps in ([{"action": "greet"}], [])
    )
    for workflow in (failing, working):
        as_acme.post("/runs", json={"workflow_id": workflow})

    assert until_ended(as_acme, working)["status"] == "success"
    run = until_ended(as_acme, failing)
    assert (run["status"], run["error_details"]) == ("error", "KeyError: 'name'")


def test_runs_are_read_page_by_page(as_acme: httpx.Client, acme: Tenant) -> None:
    params: dict[str, Any] = {"workflow_id": str(acme.workflow.id), "limit": 1}
    first = as_acme.get("/executions", params=params).json()
    second = as_acme.get("/executions", params={**params, "before": first["next"]}).json()

    assert [run["id"] for run in first["executions"]] == [acme.failed.id]
    assert [run["id"] for run in second["executions"]] == [acme.succeeded.id]
    assert second["next"] is None


def test_runs_are_counted_and_exported(as_acme: httpx.Client, acme: Tenant) -> None:
    counts = as_acme.get("/executions/summary").json()
    exported = as_acme.get("/executions/export", params={"workflow_id": str(acme.workflow.id)})

    assert counts == {"running": 0, "success": 1, "error": 1, "partial": 0}
    assert [line[: line.index(",")] for line in exported.text.splitlines()] == [
        f'{{"id":{acme.failed.id}',
        f'{{"id":{acme.succeeded.id}',
    ]


def test_a_comment_stays_with_its_workflow(as_acme: httpx.Client, acme: Tenant) -> None:
    path = f"/workflows/{acme.workflow.id}/comments"

    assert as_acme.post(path, json={"body": "Well done"}).status_code == 201
    assert [(each["body"], each["author_id"]) for each in as_acme.get(path).json()] == [
        ("Well done", str(acme.admin))
    ]


def test_what_cannot_be_committed_is_not_answered_as_done(service: Service, as_acme: httpx.Client) -> None:
    async def leave_to_the_commit(session: Session) -> None:
        session.add(WorkflowDefinition(**NEW, trigger_type=TriggerType.MANUAL))  # of no organization

    service.app.add_api_route("/late", leave_to_the_commit)

    assert as_acme.get("/late").status_code == 403


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/workflows/not-a-uuid", None, 422),
        ("GET", "/executions?before=yesterday", None, 422),
        ("GET", f"/executions/{2**63}", None, 422),
        ("GET", f"/executions/{2**63 - 1}", None, 404),
        ("POST", "/workflows", {**NEW, "workflow_json": {"text": "\0"}}, 422),
        ("POST", "/workflows", {**NEW, "name": "\0"}, 422),
        ("POST", "/workflows", {**NEW, "trigger_type": "whim"}, 422),
    ],
)
def test_bad_input_is_answered_as_such(
    as_acme: httpx.Client, method: str, path: str, body: Any, status: int
) -> None:
    assert as_acme.request(method, path, json=body).status_code == status
