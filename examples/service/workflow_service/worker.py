"""Runs workflows, and records the runs."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from workflow_models import WorkflowDefinition
from workflow_models.executions import async_record_execution
from workflow_models.tenancy import AsyncTenantSessionmaker

log = logging.getLogger(__name__)

JsonObject = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """A run to be made: what a service would hand to its broker.

    :param organization: that of the workflow, by whom the run is made.
    """

    organization: UUID | None
    workflow: UUID
    trigger_data: JsonObject


# What a step of a workflow may do, by its name; each is given what the trigger handed over.
ACTIONS: dict[str, Callable[[JsonObject], Any]] = {
    "greet": lambda trigger: f"Hello {trigger['name']}",
    "count": lambda trigger: len(trigger["items"]),
}


async def work(jobs: asyncio.Queue[Job], sessions: AsyncTenantSessionmaker) -> None:
    """Make one run after the other, until this is cancelled.

    The queue is of this process, and lost with it; a broker is not.
    """
    while True:
        job = await jobs.get()
        try:
            await make_run(job, sessions)
        except Exception:
            # Recorded as the run's error, where it could be; the next job may be another tenant's.
            log.exception("a run of workflow %s failed", job.workflow)
        finally:
            jobs.task_done()


async def make_run(job: Job, sessions: AsyncTenantSessionmaker) -> None:
    async with sessions(organization=job.organization) as session:
        workflow = await session.get_one(WorkflowDefinition, job.workflow)
        # No connection is held while the steps run, unless a step asks for one.
        async with async_record_execution(session, workflow, trigger_data=job.trigger_data) as run:
            outcome = {}
            for step in workflow.workflow_json["steps"]:
                outcome[step["action"]] = ACTIONS[step["action"]](job.trigger_data)
                run.steps_details.append({"action": step["action"], "status": "success"})
            run.result = outcome
