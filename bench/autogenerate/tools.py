"""What each tool is told of our schema, and what it then finds.

A tool registers itself with Alembic for the whole process: one process, one tool.
"""

import importlib
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

from alembic.autogenerate import produce_migrations
from alembic.operations.ops import MigrationScript
from alembic.runtime.migration import MigrationContext
from pytest_postgresql.executors import NoopExecutor
from sqlalchemy import Connection, create_engine

import tests.conftest  # noqa: F401 (registers the template)
from tests import server as servers
from tests.databases import OWNER, Database, Templates
from tests.ddl.changes import HAND_CHANGES
from tests.ddl.conftest import ROWS
from tests.ddl.test_foreign_changes import _BY_SUPERUSER, FOREIGN_CHANGES
from workflow_models import migrations
from workflow_models.base import metadata
from workflow_models.ddl import Function, Policy, Trigger
from workflow_models.ddl.item import items_of

_TABLES = tuple(metadata.tables.values())
_CORE = ["alembic.autogenerate.*", "alembic.ext.checkconstraint_byname"]


def _functions() -> list[Function]:
    return [function for function in items_of(metadata, Function) if not function.if_missing]


def _statements(kind: type[Any]) -> list[tuple[Any, Any, str]]:
    return [(t, item, item.statements(t, "public")[0]) for t in _TABLES for item in items_of(t, kind)]


def core() -> Mapping[str, Any]:
    return {"autogenerate_plugins": _CORE}


def workflow_models() -> Mapping[str, Any]:
    return {"autogenerate_plugins": ["alembic.autogenerate.*", "workflow_models.ddl"]}


def alembic_pg_autogen() -> Mapping[str, Any]:
    importlib.import_module("alembic_pg_autogen")
    return {
        "autogenerate_plugins": ["alembic.autogenerate.*", "alembic_pg_autogen.*"],
        "include_schemas": True,
        "pg_functions": [function.statements(function.schema)[0] for function in _functions()],
        "pg_triggers": [statement for _, _, statement in _statements(Trigger)],
    }


def _without_spaces(name: str) -> str:
    """It ends in an error where the name of a policy has spaces."""
    return name.replace(" ", "_").lower()


def alembic_utils() -> Mapping[str, Any]:
    entities: list[Any] = []
    utils = importlib.import_module("alembic_utils.replaceable_entity")
    of_function = importlib.import_module("alembic_utils.pg_function").PGFunction
    of_trigger = importlib.import_module("alembic_utils.pg_trigger").PGTrigger
    of_policy = importlib.import_module("alembic_utils.pg_policy").PGPolicy
    for function in _functions():
        _, _, definition = function.statements(function.schema)[0].partition(" RETURNS ")
        entities.append(
            of_function(function.schema, f"{function.name}({function.arguments})", f"RETURNS {definition}")
        )
    for table, trigger, statement in _statements(Trigger):
        entities.append(
            of_trigger("public", trigger.name, statement.partition(trigger.name)[2], f"public.{table.name}")
        )
    for table, policy, statement in _statements(Policy):
        definition = statement.partition(f"ON public.{table.name}")[2]
        entities.append(of_policy("public", _without_spaces(policy.name), definition, f"public.{table.name}"))
    # Not the grants: its PGGrantTable ends in an error (UnreachableException) on this schema.
    utils.register_entities(
        entities,
        schemas=["public", "workflow_private"],
        entity_types=[of_function, of_trigger, of_policy],
    )
    return {"autogenerate_plugins": _CORE, "include_schemas": True}


def sqlalchemy_declarative_extensions() -> Mapping[str, Any]:
    extensions = importlib.import_module("sqlalchemy_declarative_extensions")
    postgresql = importlib.import_module("sqlalchemy_declarative_extensions.dialects.postgresql")
    triggers = []
    for table, item, _ in _statements(Trigger):
        make = getattr(postgresql.Trigger, item.timing.lower())
        function = item.function.removesuffix("()")
        trigger = make(*map(str.lower, item.events), on=table.name, execute=function, name=item.name)
        triggers.append((trigger.when(item.when) if item.when else trigger).for_each_row())
    extensions.declare_database(
        metadata,
        schemas=extensions.Schemas().are("workflow_private"),
        functions=extensions.Functions().are(
            *(
                postgresql.Function(
                    function.name,
                    function.body,
                    schema=function.schema,
                    returns=function.returns,
                    language=function.language,
                    parameters=[each.strip() for each in function.arguments.split(",") if each],
                    security=postgresql.FunctionSecurity[function.security.lower()],
                    volatility=postgresql.FunctionVolatility[function.volatility],
                    parallel=postgresql.FunctionParallel[function.parallel],
                )
                for function in _functions()
            )
        ),
        triggers=extensions.Triggers(ignore_unspecified=True).are(*triggers),
    )
    extensions.register_alembic_events(schemas=True, functions=True, triggers=True, grants=False, roles=False)
    return {"autogenerate_plugins": _CORE}


TOOLS: dict[str, Callable[[], Mapping[str, Any]]] = {
    "this package": workflow_models,
    "Alembic": core,
    "alembic-utils": alembic_utils,
    "alembic-pg-autogen": alembic_pg_autogen,
    "sqlalchemy-declarative-extensions": sqlalchemy_declarative_extensions,
}


def _found(connection: Connection, options: Mapping[str, Any]) -> set[str]:
    connection.exec_driver_sql(f"SET LOCAL ROLE {OWNER}")
    context = MigrationContext.configure(
        connection,
        opts={
            "target_metadata": metadata,
            "version_table_schema": migrations.VERSION_TABLE_SCHEMA,
            "include_object": migrations.include_object,
            "compare_server_default": True,
            "include_schemas": False,
            **options,
        },
    )
    script: MigrationScript = produce_migrations(context, metadata)
    assert script.upgrade_ops is not None
    found = set()
    for op in _leaves(script.upgrade_ops):
        try:
            found.add(str(op.to_diff_tuple()))
        except (AttributeError, NotImplementedError):
            found.add(f"{type(op).__name__} {getattr(op, 'target', None) or vars(op)}")
    return found


def _leaves(op: Any) -> list[Any]:
    nested = getattr(op, "ops", None)
    return [op] if nested is None else [leaf for each in nested for leaf in _leaves(each)]


def _waits(connection: Connection, options: Mapping[str, Any], database: Database) -> bool:
    """Tell whether a comparison waits for somebody who writes to our tables."""
    with database.connect(autocommit=False) as writer:
        for table in _TABLES:
            writer.execute(f"LOCK TABLE {table.name} IN ROW EXCLUSIVE MODE".encode())
        connection.exec_driver_sql("SET LOCAL lock_timeout = '500ms'")
        try:
            _found(connection, options)
        except Exception as error:
            return "lock timeout" in str(error)
        finally:
            connection.rollback()
            writer.rollback()
    return False


def measure(name: str) -> dict[str, Any]:
    """Give how a tool fares with each change: found, silent, or the error that ends it."""
    results: dict[str, dict[str, str]] = {"hand": {}, "foreign": {}}
    with servers.serve(servers.chosen()[0]) as server:
        servers.make_roles(server)
        executor = NoopExecutor(server.host, server.port, server.user, server.options, "bench")
        database = Templates(executor, "template1").clone("upgraded")
        database.execute(ROWS)
        options = TOOLS[name]()
        renamed = {}
        if name == "alembic-utils":
            renamed = {f'"{p.name}"': _without_spaces(p.name) for _, p, _ in _statements(Policy)}
            for table, policy, _ in _statements(Policy):
                new = _without_spaces(policy.name)
                database.execute(f'ALTER POLICY "{policy.name}" ON {table.name} RENAME TO {new}')
        engine = create_engine(database.url(database.superuser))
        with engine.connect() as connection:
            connection.exec_driver_sql("SET search_path = public")
            connection.commit()
            noise = _found(connection, options)
            connection.rollback()
            waits = _waits(connection, options, database)
            changes = {
                "hand": {key: change.sql for key, change in HAND_CHANGES.items()},
                "foreign": {
                    key: sql.replace("DEFINITIONS", "workflow_definitions").replace(
                        "LOGS", "workflow_execution_logs"
                    )
                    for key, sql in FOREIGN_CHANGES.items()
                },
            }
            for kind, each in changes.items():
                for key, sql in each.items():
                    for old, new in renamed.items():
                        sql = sql.replace(old, new)
                    by_owner = key not in _BY_SUPERUSER and not (
                        kind == "hand" and HAND_CHANGES[key].as_superuser
                    )
                    if by_owner:
                        connection.exec_driver_sql(f"SET LOCAL ROLE {OWNER}")
                    connection.exec_driver_sql(sql, execution_options={"no_parameters": True})
                    try:
                        more = _found(connection, options) - noise
                        results[kind][key] = "found" if more else ""
                    except Exception as error:
                        results[kind][key] = f"error: {type(error).__name__}"
                    connection.rollback()
        engine.dispose()
    return {"noise": len(noise), "waits": waits, **results}


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))
