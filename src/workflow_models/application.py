"""Tables that the application owns and that ours refer to, with the columns that are relied on.

They are never created over, altered, dropped or compared. Their MetaData is not that of the
models: a service that maps `organizations` itself can give Alembic both its own and ours.
"""

from sqlalchemy import Column, MetaData, Table, Text, Uuid, text

application_metadata = MetaData()

organizations = Table(
    "organizations",
    application_metadata,
    Column("id", Uuid, primary_key=True, server_default=text("gen_random_uuid()")),
)

profiles = Table(
    "profiles",
    application_metadata,
    Column("id", Uuid, primary_key=True),  # of the user, as auth.users and tokens have it
    Column("organization_id", Uuid),
    # user, admin or super_admin; named user_role in some databases, or renamed to that later.
    Column("role", Text, server_default="user"),
)
