"""A library, and a chain of revisions for each test that asks for one."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.databases import Database
from tests.online.library import Chain


@pytest.fixture
def library(clone: Callable[[str], Database]) -> Database:
    """Another domain's database, to which no revision was applied yet."""
    return clone("library")


@pytest.fixture
def chain(tmp_path: Path) -> Callable[..., Chain]:
    """Gives a chain of revisions with these bodies."""
    return lambda *bodies: Chain(tmp_path, bodies)
