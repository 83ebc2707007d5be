"""An application around our two tables: its hand-written SQL, the states that it leaves, its people."""

from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

ACME = UUID("a0000000-0000-4000-8000-000000000000")
GLOBEX = UUID("b0000000-0000-4000-8000-000000000000")
# Has neither people nor workflows.
INITECH = UUID("c0000000-0000-4000-8000-000000000000")

ACME_WORKFLOW = UUID("a0000000-0000-4000-9000-000000000001")
GLOBEX_WORKFLOW = UUID("b0000000-0000-4000-9000-000000000001")
GLOBAL_WORKFLOW = UUID("f0000000-0000-4000-9000-000000000001")


@dataclass(frozen=True)
class Person:
    """A row of `auth.users`, and of `profiles` except for the last two.

    `sees` is whose rows the person reads, `administers` whose workflows they write.
    """

    name: str
    id: UUID
    organization: UUID | None = None
    sees_all: bool = False
    administers: UUID | None = None

    def __str__(self) -> str:
        return self.name


ACME_USER = Person("user of Acme", UUID("a0000000-0000-4000-8000-000000000001"), ACME)
ACME_ADMIN = Person("admin of Acme", UUID("a0000000-0000-4000-8000-000000000002"), ACME, administers=ACME)
ACME_SUPER = Person(
    "super admin of Acme", UUID("a0000000-0000-4000-8000-000000000003"), ACME, sees_all=True, administers=ACME
)
GLOBEX_USER = Person("user of Globex", UUID("b0000000-0000-4000-8000-000000000001"), GLOBEX)
GLOBEX_ADMIN = Person(
    "admin of Globex", UUID("b0000000-0000-4000-8000-000000000002"), GLOBEX, administers=GLOBEX
)
GLOBEX_SUPER = Person(
    "super admin of Globex",
    UUID("b0000000-0000-4000-8000-000000000003"),
    GLOBEX,
    sees_all=True,
    administers=GLOBEX,
)
ORPHAN = Person("orphan", UUID("f0000000-0000-4000-8000-000000000001"))
ORPHAN_ADMIN = Person("orphaned admin", UUID("f0000000-0000-4000-8000-000000000002"))
ORPHAN_SUPER = Person("orphaned super admin", UUID("f0000000-0000-4000-8000-000000000003"), sees_all=True)
WITHOUT_PROFILE = Person("user without a profile", UUID("f0000000-0000-4000-8000-000000000009"))
UNKNOWN = Person("unknown user", UUID("e0000000-0000-4000-8000-000000000000"))

PEOPLE = (
    ACME_USER, ACME_ADMIN, ACME_SUPER, GLOBEX_USER, GLOBEX_ADMIN, GLOBEX_SUPER,
    ORPHAN, ORPHAN_ADMIN, ORPHAN_SUPER, WITHOUT_PROFILE, UNKNOWN,
)  # fmt: skip


def script(name: str) -> str:
    """One of the application's SQL files."""
    return Path(__file__).with_name(f"{name}.sql").read_text()
