"""Declared functions, made in pg_temp to be read, and to be called where the database has none like them.

Nothing is made, renamed or dropped under a real name, not even until it is rolled back: another check, or
whoever creates the same function, would wait for that.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy

from sqlalchemy import Connection, text

from . import facts
from .enum_types import EnumTypes
from .expression import outside_of_texts
from .facts import Facts, reworded
from .function import Function
from .item import DeclarationError, execute, identifier, quoted, rewritten

# relation.CLEAN knows it.
_PREFIX = "declared_function_"
_PRINTED = re.compile(rf"(pg_temp(?:_\d+)?\.)?\b({_PREFIX}\d+)\b")

_QUOTED = text("""
    SELECT quote_ident(name) FROM unnest(CAST(:names AS text[])) WITH ORDINALITY AS _ (name, place)
    ORDER BY place
""")
_MADE = text("""
    SELECT proname::text FROM pg_proc WHERE pronamespace = pg_my_temp_schema() AND proname LIKE :ours
""")


class Substitutes:
    """Functions in pg_temp under names of their own, each for those of one name that are declared.

    :param visible: the schemas without which functions are called and printed.
    :param identifiers: names of schemas and functions as PostgreSQL prints them.
    :param types: what stands for enum types.
    """

    def __init__(
        self,
        functions: Sequence[Function],
        visible: Sequence[str],
        identifiers: Mapping[str, str],
        types: EnumTypes | None = None,
    ) -> None:
        names = dict.fromkeys((function.schema, function.name) for function in functions)
        self._substitutes = {name: f"{_PREFIX}{number}" for number, name in enumerate(names)}
        self._real = {substitute: name for name, substitute in self._substitutes.items()}
        self._visible = visible
        self._identifiers = identifiers
        self._types = types

    def of_schema(self, schema: str) -> list[str]:
        """Give the names in pg_temp."""
        return [substitute for (of, _), substitute in self._substitutes.items() if of == schema]

    def declared_as(self, substitute: str) -> tuple[str, str]:
        """Give the schema and the name of those that one stands for."""
        return self._real[substitute]

    def making(
        self, function: Function, *, calling: bool = True, checked: bool = False, typed: bool = True
    ) -> Sequence[str]:
        """Give the statements that make a function in pg_temp.

        :param calling: whether it calls others in pg_temp where PostgreSQL looks for them at once.
        :param checked: whether it does so also where PostgreSQL looks only when told to check.
        :param typed: whether it uses what stands for enum types.
        """
        made = copy(function)
        made.name = self._substitutes[function.schema, function.name]
        if calling:
            made.arguments = self.calling(function.arguments)
        if checked or (calling and function.body_is_parsed):
            made.body = self.calling(function.body)
        if typed and self._types:
            made.arguments = self._types.in_signature(made.arguments)
            made.returns = self._types.in_signature(made.returns)
            if function.body_is_parsed:
                made.body = outside_of_texts(made.body, self._types.in_expressions)
        return made.statements("pg_temp")

    def calling(self, sql: str) -> str:
        """Give SQL that calls them instead of what it names."""
        return outside_of_texts(sql, self._calling) if self._substitutes else sql

    def _calling(self, sql: str) -> str:
        for (schema, name), substitute in self._substitutes.items():
            qualified = rf"{identifier(schema)}\s*\.\s*"
            optional = "?" if schema in self._visible else ""
            call = rf'(?<![\w$".])(?:{qualified}){optional}{identifier(name)}(?=\s*\()'
            sql = re.sub(call, f"pg_temp.{substitute}", sql)
        return sql

    def printed(self, words: str) -> str:
        """Give what PostgreSQL prints with the names that are declared."""
        return words if _PREFIX not in words else _PRINTED.sub(self._printed_name, words)

    def _printed_name(self, found: re.Match[str]) -> str:
        schema, name = self.declared_as(found[2])
        # Where no pg_temp is in front, the schema is.
        parts = [name] if not found[1] or schema in self._visible else [schema, name]
        return ".".join(self._identifiers[part] for part in parts)

    def facts(self, read: Facts) -> Facts:
        """Give facts with the names that are declared."""
        read = reworded(read, self.printed) if self._real else read
        return self._types.facts(read) if self._types else read

    @contextmanager
    def called(self, connection: Connection) -> Iterator[None]:
        """Let all statements call them."""
        with rewritten(connection, self.calling), self.named():
            yield

    @contextmanager
    def named(self) -> Iterator[None]:
        """Let errors name what is declared."""
        try:
            yield
        except DeclarationError as error:
            raise DeclarationError(self.printed(str(error))) from error.__cause__


def read(
    connection: Connection,
    functions: Sequence[Function],
    found: Facts,
    visible: Sequence[str],
    types: EnumTypes,
    *,
    tables_stand: bool,
) -> tuple[Facts, Substitutes]:
    """Read declared functions, and make those that declared tables shall call.

    :param visible: the schemas without which functions are called and printed.
    :param types: what stands for enum types. Where there are some, tables do not have them yet.
    :param tables_stand: whether the tables and columns that bodies may name are all there.
    :returns: also what stands in pg_temp afterwards: nothing where the database has just what is declared.
    """
    declared = [function for function in functions if not function.if_missing]
    missing = [
        function for function in functions if function.if_missing and not _is_there(connection, function)
    ]
    substitutes = _substitutes(connection, [*declared, *missing], visible, types)
    if not missing and not types:
        try:
            with connection.begin_nested() as made:
                for function in declared:
                    _make(connection, function, substitutes.making(function, calling=False))
                as_declared = _facts(connection, declared, substitutes)
                made.rollback()
            if not _differ_to_a_caller(as_declared, found):
                return as_declared, Substitutes((), (), {})
        except DeclarationError:
            # One may need another that is missing.
            pass
    with substitutes.named():
        _make_in_their_order(connection, [*declared, *missing], substitutes)
        as_declared = _facts(connection, [*declared, *missing], substitutes)
        if tables_stand and not types:
            _refuse_wrong_bodies(connection, declared, substitutes)
    return as_declared, substitutes


def _substitutes(
    connection: Connection, functions: Sequence[Function], visible: Sequence[str], types: EnumTypes
) -> Substitutes:
    names = list({name for function in functions for name in (function.schema, function.name)})
    printed = connection.scalars(_QUOTED, {"names": names})
    return Substitutes(functions, visible, dict(zip(names, printed, strict=True)), types)


def _is_there(connection: Connection, function: Function) -> bool:
    signature = f"{quoted(function.schema, function.name)}({function.arguments})"
    return connection.scalar(text("SELECT to_regprocedure(:name)"), {"name": signature}) is not None


def _make(connection: Connection, function: Function, statements: Sequence[str]) -> None:
    execute(connection, statements, f"Function {function.schema}.{function.name}")


def _facts(connection: Connection, functions: Sequence[Function], substitutes: Substitutes) -> Facts:
    _refuse_functions_of_the_same_types(connection, functions, substitutes)
    oid = connection.scalar(text("SELECT pg_my_temp_schema()"))
    read: Facts = {}
    for schema in dict.fromkeys(function.schema for function in functions):
        read |= facts.of_functions(connection, oid, schema, substitutes.of_schema(schema))
    return substitutes.facts(read)


def _refuse_functions_of_the_same_types(
    connection: Connection, functions: Sequence[Function], substitutes: Substitutes
) -> None:
    """Only PostgreSQL knows which types are the same; the second one took the place of the first."""
    names = connection.scalars(_MADE, {"ours": f"{_PREFIX}%"})
    made = Counter(map(substitutes.declared_as, names))
    for name, declared in Counter((function.schema, function.name) for function in functions).items():
        if made[name] < declared:
            raise DeclarationError(
                f"Function {'.'.join(name)}: declared twice with arguments of the same types"
            )


def _differ_to_a_caller(declared: Facts, found: Facts) -> bool:
    """Tell whether a call may end otherwise in the database, or nowhere."""
    functions = {key: fact for key, fact in declared.items() if fact.kind == "function"}
    names = {_callable(fact.name) for fact in functions.values()}
    return any(key not in found or not fact.can_alter(found[key]) for key, fact in functions.items()) or any(
        fact.kind == "function" and key not in functions and _callable(fact.name) in names
        for key, fact in found.items()
    )


def _callable(signature: str) -> str:
    return signature.partition("(")[0]


def _make_in_their_order(
    connection: Connection, functions: Sequence[Function], substitutes: Substitutes
) -> None:
    """Make functions some of which need others that are declared later."""
    # Bodies are read as they are declared, and therefore call what may not be there.
    connection.exec_driver_sql("SET LOCAL check_function_bodies = off")
    left = list(functions)
    while left:
        failed: dict[Function, DeclarationError] = {}
        for function in left:
            # A body that is parsed at once may need the types that the tables have.
            for typed in (True, False):
                try:
                    with connection.begin_nested():
                        _make(connection, function, substitutes.making(function, typed=typed))
                    failed.pop(function, None)
                    break
                except DeclarationError as error:
                    failed.setdefault(function, error)
        if len(failed) == len(left):
            raise failed[left[0]]
        left = list(failed)


def _refuse_wrong_bodies(
    connection: Connection, functions: Sequence[Function], substitutes: Substitutes
) -> None:
    with connection.begin_nested() as made:
        connection.exec_driver_sql("SET LOCAL check_function_bodies = on")
        for function in functions:
            _make(connection, function, substitutes.making(function, checked=True))
        made.rollback()
