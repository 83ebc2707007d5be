"""Commands for the rows of runs: end what a crashed worker left, delete what is old."""

import json
import re
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID

import click

from workflow_models.cli.group import main, tell
from workflow_models.cli.group import url as _url

if TYPE_CHECKING:
    from sqlalchemy import Engine


class _Duration(click.ParamType[timedelta]):
    """A number of days, hours or minutes: 90d, 12h, 30m."""

    name = "duration"
    _UNITS: ClassVar = {"d": "days", "h": "hours", "m": "minutes"}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        if isinstance(value, timedelta):
            return value
        found = re.fullmatch(r"(\d{1,8})([dhm])", value, re.ASCII)
        duration = timedelta(**{self._UNITS[found[2]]: int(found[1])}) if found else timedelta(0)
        if not timedelta(0) < duration <= timedelta(days=36_500):
            self.fail(f"{value!r} is not a duration like 90d, 12h or 30m, of at most 36500d.", param, ctx)
        return duration


_older_than = click.option(
    "--older-than", type=_Duration(), required=True, help="How old: days, hours or minutes, as 90d, 12h, 30m."
)
_json = click.option("--json", "as_json", is_flag=True, help="Print the counts as one JSON object.")


@main.command()
@_older_than
@click.option("--apply", is_flag=True, help="Mark them; without it they are only counted.")
@_json
@_url
def sweep(older_than: timedelta, apply: bool, as_json: bool, url: str | None) -> None:
    """Mark runs as error that say running since long ago.

    Their workers crashed: a worker that is alive records the end itself, also afterwards. Run it as the
    owner of the tables or as service_role.

    \b
    Examples:
      workflow-models sweep --older-than 2h             # counts them
      workflow-models sweep --older-than 2h --apply
    """
    from workflow_models import maintenance

    swept = maintenance.sweep(_engine(url), older_than, apply=apply)
    if as_json:
        click.echo(json.dumps(asdict(swept)))
    elif apply:
        click.echo(f"{swept.marked:,} of {_runs(swept.found)} marked as error.")
    else:
        click.echo(f"{_runs(swept.found)} would be marked as error; --apply does it.")


@main.command()
@_older_than
@click.option(
    "--status",
    type=click.Choice(["running", "success", "error", "partial"]),
    help="Only runs that ended so; running ones only where it is `running`.",
)
@click.option("--organization", type=click.UUID, help="Only runs of the organization with this id.")
@click.option("--apply", is_flag=True, help="Delete them; without it they are only counted.")
@_json
@_url
def prune(
    older_than: timedelta,
    status: str | None,
    organization: UUID | None,
    apply: bool,
    as_json: bool,
    url: str | None,
) -> None:
    """Delete old runs.

    Kept are those that rows of other tables point at, and those still running. Run it as the owner of the
    tables or as service_role.

    \b
    Examples:
      workflow-models prune --older-than 90d            # counts them
      workflow-models prune --older-than 90d --status success --apply
    """
    from workflow_models import ExecutionStatus, maintenance

    pruned = maintenance.prune(
        _engine(url),
        older_than,
        status=ExecutionStatus(status) if status else None,
        organization_id=organization,
        apply=apply,
    )
    if as_json:
        click.echo(json.dumps(asdict(pruned)))
        return
    if apply:
        click.echo(f"{_runs(pruned.deleted)} deleted.")
    else:
        click.echo(f"{_runs(pruned.deletable)} would be deleted; --apply does it.")
    kept = {
        "that other tables point at": pruned.referenced,
        "still running, for `workflow-models sweep`": pruned.running,
        "that somebody is writing": pruned.locked,
    }
    for why, runs in kept.items():
        if runs:
            click.echo(f"Kept: {runs:,} {why}.")


def _runs(count: int) -> str:
    return f"{count:,} run" if count == 1 else f"{count:,} runs"


def _engine(url: str | None) -> "Engine":
    """Give the database of a command that works for long and tells how far it is."""
    from workflow_models.migrations import command_engine, database_url
    from workflow_models.revisions import RevisionError, known_revisions, require_head

    tell()
    engine = command_engine(database_url(url))
    try:
        require_head(engine)
    except RevisionError as error:
        # What the rows of a later release mean is not known here; before that they meant the same.
        if not {*error.found} <= {*known_revisions()}:
            raise
    return engine
