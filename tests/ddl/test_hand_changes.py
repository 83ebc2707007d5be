"""Each change that somebody makes by hand is found, and the revision that is generated undoes it.

Changes that are about different things are made together, some at a time: together they take little longer
than one, and what finds and undoes them has to tell them apart.
"""

import re

import pytest

from tests.databases import OWNER
from tests.ddl.changes import DEFINITIONS, HAND_CHANGES, LOGS, Change
from tests.ddl.conftest import Shared
from tests.server import ROLES

AT_ONCE = 12
# What changes name without being about it.
EVERYWHERE = {LOGS, DEFINITIONS, *ROLES, "public", "workflow_private", "integer", "text", "uuid"} | {
    "organization_id",
    "workflow_id",
    "created_at",
    "status",
    "id",
}


def things(change: Change) -> set[str]:
    """What it is about: the names in its SQL, whose keywords are in capitals, and what is found."""
    named = set(re.findall(r'"[^"]+"|\b[a-z_][a-z_0-9]+\b', change.sql))
    found = {title.partition(" ")[2] for title in change.found}
    return (named - EVERYWHERE) | found


def together() -> list[list[str]]:
    """Part the changes so that no two of one part are about the same thing, or need another user."""
    parts: list[list[str]] = []
    for name, change in HAND_CHANGES.items():
        for part in parts:
            others = [HAND_CHANGES[other] for other in part]
            if (
                len(part) < AT_ONCE
                and all(_is_made_alike(change, other) for other in others)
                and all(things(change).isdisjoint(things(other)) for other in others)
            ):
                part.append(name)
                break
        else:
            parts.append([name])
    return parts


def _is_made_alike(one: Change, other: Change) -> bool:
    flags = ("as_superuser", "repaired_by_superuser", "proven")
    return all(getattr(one, flag) == getattr(other, flag) for flag in flags)


# SQLAlchemy warns of itself when it reflects a CHECK that is NOT VALID or NO INHERIT.
@pytest.mark.filterwarnings("ignore:Can't validate argument 'dialect_options'")
@pytest.mark.parametrize("names", together(), ids=", ".join)
def test_hand_changes_are_found_and_undone(names: list[str], shared: Shared) -> None:
    changes = [HAND_CHANGES[name] for name in names]
    first = changes[0]
    database = shared.borrow()
    proof = shared.proof(database.superuser if first.repaired_by_superuser else OWNER)
    connection = shared.connection(database.superuser if first.as_superuser else OWNER)
    for change in changes:
        connection.execute(change.sql.encode())

    generated = proof.generate()

    assert set(generated.titles) == {title for change in changes for title in change.found}
    if first.proven:
        proof.of(generated.decided)
        assert shared.now() == shared.pristine
        shared.clean = True


def test_there_are_a_hundred_of_them_and_each_is_made() -> None:
    assert len(HAND_CHANGES) >= 100
    assert sorted(name for part in together() for name in part) == sorted(HAND_CHANGES)
