"""Functions, the schemas that they stand in, and the roles that may call them."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, MetaData, event, text

from .expression import fault
from .grant import grant_statement
from .item import MetaDataItem, described, execute, literal, names, quoted, revoke_defaults


class Role(MetaDataItem):
    """A role without login that must exist; created where it does not. Roles are never compared."""

    def __init__(self, name: str, metadata: MetaData) -> None:
        self.name = name
        super().__init__(metadata)

    def schema_name(self) -> str:
        return ""

    def statements(self, schema: str | None) -> Sequence[str]:
        return [
            (
                f"DO $role$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {literal(self.name)}) "
                f"THEN CREATE ROLE {quoted(self.name)} NOLOGIN; END IF; END $role$"
            )
        ]


class Schema(MetaDataItem):
    """A schema, whose functions and privileges are compared as a whole.

    :param usage: roles with USAGE.
    :param if_exists: pass over roles that do not exist.
    """

    def __init__(
        self, name: str, metadata: MetaData, *, usage: str | Sequence[str] = (), if_exists: bool = False
    ) -> None:
        self.name = name
        self.usage = names(usage)
        self.if_exists = if_exists
        super().__init__(metadata)

    def schema_name(self) -> str:
        return self.name

    def statements(self, schema: str | None) -> Sequence[str]:
        return [
            f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)}",
            *(
                grant_statement("USAGE", f"SCHEMA {quoted(schema)}", role, if_exists=self.if_exists)
                for role in self.usage
            ),
        ]


class Function(MetaDataItem):
    """A function, as CREATE FUNCTION makes it.

    Nobody but its owner and the roles in ``execute`` may call it.

    :param arguments: as between the parentheses of CREATE FUNCTION, which it may not leave.
    :param returns: as behind RETURNS.
    :param body: compared to the letter. One that starts with BEGIN ATOMIC or RETURN is not quoted: PostgreSQL
        parses it at once, so that what it names must be there, and prints it in its own words.
    :param volatility: VOLATILE, STABLE or IMMUTABLE.
    :param security: INVOKER or DEFINER.
    :param parallel: UNSAFE, RESTRICTED or SAFE.
    :param settings: as by SET, of what the function sees while it runs.
    :param execute: roles that may call it.
    :param if_exists: pass over roles that do not exist.
    :param if_missing: it belongs to somebody else: created where it is missing, and never compared otherwise.
    """

    distinct = ("schema", "name", "arguments")

    def __init__(
        self,
        name: str,
        metadata: MetaData,
        *,
        body: str,
        returns: str,
        arguments: str = "",
        schema: str = "public",
        language: str = "plpgsql",
        volatility: str = "VOLATILE",
        security: str = "INVOKER",
        parallel: str = "UNSAFE",
        settings: Mapping[str, str] | None = None,
        execute: str | Sequence[str] = (),
        if_exists: bool = False,
        if_missing: bool = False,
    ) -> None:
        wrong = fault(arguments)
        if wrong:
            raise ValueError(f"function {schema}.{name}: its list of arguments {wrong}: {arguments}")
        self.name = name
        self.body = body
        self.returns = returns
        self.arguments = arguments
        self.schema = schema
        self.language = language
        self.volatility = volatility
        self.security = security
        self.parallel = parallel
        self.settings = dict(settings or {})
        self.execute = names(execute)
        self.if_exists = if_exists
        self.if_missing = if_missing
        super().__init__(metadata)
        if self._may_name_tables:
            event.listen(metadata, "after_create", self._check)

    def schema_name(self) -> str:
        return self.schema

    @property
    def body_is_parsed(self) -> bool:
        """Whether PostgreSQL keeps what the body means, not its text."""
        return self.language.lower() == "sql" and _PARSED.match(self.body) is not None

    @property
    def _may_name_tables(self) -> bool:
        """Whether PostgreSQL looks for what the body names, though only a call needs it."""
        return self.language.lower() == "sql" and not self.body_is_parsed and not self.if_missing

    def _create(self, target: MetaData, connection: Connection, **kw: Any) -> None:
        statements = self.statements(self.schema)
        if self._may_name_tables:
            # Tables come after it, since they may call it.
            before = connection.scalar(text("SELECT current_setting('check_function_bodies')"))
            setting = "SET LOCAL check_function_bodies = "
            statements = [f"{setting}off", *statements, f"{setting}{before}"]
        execute(connection, statements, described(self))

    def _check(self, target: MetaData, connection: Connection, **kw: Any) -> None:
        """Let PostgreSQL look for what the body names once all is there."""
        execute(connection, self.statements(self.schema)[:1], described(self))

    def statements(self, schema: str | None) -> Sequence[str]:
        signature = f"{quoted(schema, self.name)}({self.arguments})"
        identity = f"{quoted(schema, self.name)}({_without_defaults(self.arguments)})"
        settings = "".join(f"\nSET {name} = {value}" for name, value in self.settings.items())
        body = self.body if self.body_is_parsed else f"AS {_quoted(self.body)}"
        statements = [
            (
                f"CREATE OR REPLACE FUNCTION {signature} RETURNS {self.returns}\n"
                f"LANGUAGE {self.language} {self.volatility} PARALLEL {self.parallel} "
                f"SECURITY {self.security}{settings}\n{body}"
            ),
            f"REVOKE ALL ON FUNCTION {identity} FROM PUBLIC",
            revoke_defaults(
                "FUNCTION",
                identity,
                f"object.proname = {literal(self.name)}",
                catalog="proc",
                prefix="pro",
            ),
            *(
                grant_statement("EXECUTE", f"FUNCTION {identity}", role, if_exists=self.if_exists)
                for role in self.execute
            ),
        ]
        if not self.if_missing:
            return statements
        return [
            f"DO $missing$ BEGIN IF to_regprocedure({literal(signature)}) IS NULL THEN "
            + " ".join(f"{statement};" for statement in statements)
            + " END IF; END $missing$"
        ]


def _quoted(body: str) -> str:
    """Quote as PostgreSQL prints it."""
    tag = "function"
    while f"${tag}" in body:
        tag += "x"
    return f"${tag}${body}${tag}$"


_PARSED = re.compile(r"\s*(BEGIN\s+ATOMIC|RETURN)\b", re.IGNORECASE)
# A quoted text or name, or what is in parentheses or brackets, in which a comma separates nothing.
_TOKEN = re.compile(r"""'(?:[^']|'')*' | "(?:[^"]|"")*" | [(\[] | [)\]] | , | [^'"(\[)\],]+""", re.VERBOSE)


def _without_defaults(arguments: str) -> str:
    """Give arguments as GRANT and REVOKE take them."""
    depth = 0
    kept = [""]
    for token in _TOKEN.findall(arguments):
        depth += (token in "([") - (token in ")]")
        if token == "," and not depth:
            kept.append("")
        else:
            kept[-1] += token
    return ",".join(re.split(r"(?i)\sdefault\s|:?=", argument)[0].rstrip() for argument in kept)
