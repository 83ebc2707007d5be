"""What services catch: each kind of failure has its own type, and all of them one base.

A message says what happened, what was left unchanged and the one next step. The database's own error, where
there is one, is the ``__cause__``.
"""


class WorkflowModelsError(Exception):
    """The base of what this package raises in a service.

    :param happened: one sentence, or several; no password and no values of rows.
    :param unchanged: the state that the database was left in.
    :param next_step: what to do now; a second line where a statement is to be run.
    """

    def __init__(self, happened: str, *, unchanged: str, next_step: str) -> None:
        self.happened = happened
        self.unchanged = unchanged
        self.next_step = next_step
        super().__init__(
            f"{happened}\n  Unchanged: {unchanged}\n  Next: {next_step}".replace("\n    ", "\n" + " " * 8)
        )


class TenancyError(WorkflowModelsError):
    """A tenant session was refused, before any statement of its user ran."""

    def __init__(self, happened: str, *, next_step: str) -> None:
        super().__init__(
            happened, unchanged="no statement of this session's transaction was run.", next_step=next_step
        )


class MissingTenantError(TenancyError):
    """Neither a user nor an organization was given."""


class AmbiguousTenantError(TenancyError):
    """Both a user and an organization were given, or ``every_organization`` without a user."""


class MalformedTenantError(TenancyError):
    """What was given for the user or the organization is not a UUID."""


class UnknownUserError(TenancyError):
    """No profile has the user's id."""


class UserWithoutOrganizationError(TenancyError):
    """The user's profile names no organization, and the session does not ask for every organization."""


class UnknownOrganizationError(TenancyError):
    """No organization has that id."""


class UnsupportedSessionError(TenancyError):
    """The session was asked for what cannot be confined to one tenant, such as another bind."""


class AutocommitError(TenancyError):
    """The connection commits each statement by itself: identity and role would be gone after the first."""


class UnreachableDatabaseError(TenancyError):
    """The database cannot be reached, or closed the connection when the transaction began."""


class OutdatedSchemaError(TenancyError):
    """The database lacks what sessions rely on: it is before the revision that the models need."""


class RoleNotGrantedError(TenancyError):
    """The login may not take the role of a user or a worker."""


class RowSecurityBypassedError(TenancyError):
    """The role that was taken is above the row-level security of our tables, or that is switched off."""


class MissingExtraError(ModuleNotFoundError):
    """A module of this package was imported without the extra that it needs.

    :param module: of this package.
    :param extra: to be installed.
    :param error: of the import that failed.
    """

    def __init__(self, module: str, extra: str, error: ImportError) -> None:
        # SQLAlchemy's own advice would be to install an extra of its.
        found = error.__cause__ if isinstance(error.__cause__, ImportError) else error
        super().__init__(
            f"{module} needs the extra `{extra}`.\n"
            f"  Happened: {found}.\n"
            f"  Next: pip install 'workflow-models[{extra}]'",
            name=found.name,
        )
