"""Each change that somebody makes by hand is found, and the revision that is generated undoes it."""

import pytest

from tests.databases import OWNER
from tests.ddl.changes import HAND_CHANGES, Change
from tests.ddl.conftest import Shared


# SQLAlchemy warns of itself when it reflects a CHECK that is NOT VALID or NO INHERIT.
@pytest.mark.filterwarnings("ignore:Can't validate argument 'dialect_options'")
@pytest.mark.parametrize("change", HAND_CHANGES.values(), ids=HAND_CHANGES.keys())
def test_a_hand_change_is_found_and_undone(change: Change, shared: Shared) -> None:
    database = shared.borrow()
    proof = shared.proof(database.superuser if change.repaired_by_superuser else OWNER)
    shared.connection(database.superuser if change.as_superuser else OWNER).execute(change.sql.encode())

    generated = proof.generate()

    assert set(generated.titles) == set(change.found)
    if change.proven:
        # A check found nothing in the pristine catalog: to be there again is enough, if it shows the change.
        shows = shared.now() != shared.pristine
        revision = generated.decided
        proof.of_steps(revision.upgrade, revision.downgrade, clean=not shows)
        assert shared.now() == shared.pristine
        shared.clean = True


def test_there_are_a_hundred_of_them() -> None:
    assert len(HAND_CHANGES) >= 100
