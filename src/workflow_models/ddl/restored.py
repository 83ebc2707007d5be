"""How a column or a table that is dropped is made again as it was, its values aside."""

from collections.abc import Collection, Iterator, Sequence

from .facts import Fact, Facts
from .item import only_what_is_granted, quoted
from .order import ORDER

# What PostgreSQL gives a column or a table of which nothing is said.
_USUAL = {
    "storage": "default",
    "compression": "default",
    "statistics target": "-1",
    "column comment": None,
    "table comment": None,
    "replica identity": "DEFAULT",
    "clustering": None,
    "persistence": "logged",
    "relation kind": "table",
}


def restoring_table(relation: str, found: Facts) -> Sequence[str]:
    """Give the statements that make a table again with all that is on it; none where nothing is known of it.

    :param relation: the table, as statements say it.
    :param found: what was on all tables that are made again, their parents first.
    """
    of_table = [fact for fact in found.values() if fact.on == relation]
    columns = [fact.name for fact in of_table if fact.kind == "type"]
    if not of_table:
        return []
    # Last, since they use others.
    columns.sort(key=lambda column: ("generated column", relation, column) in found)
    parents = [fact for fact in of_table if fact.kind == "inheritance" and fact.attributes]
    # They have what is inherited all at once.
    inherited = parents[0].attributes if parents else {}
    whose = inherited.get("columns") or {}
    checks = inherited.get("checks") or {}
    children = {fact.name for fact in found.values() if fact.kind == "inheritance" and fact.attributes}
    others = [
        fact
        for fact in of_table
        if not _comes_with_its_column(fact)
        and not _is_usual(fact)
        and not (fact.kind == "inheritance" and fact.name in children)
        and not (fact.kind == "check constraint" and fact.name in checks)
    ]
    # Row security last: under FORCE no foreign key can be validated.
    others.sort(key=lambda fact: (fact.kind == "row security", ORDER.index(fact.kind)))
    both = [
        *(
            f"{quoted(column)} {found['type', relation, column].attributes['value']}"
            for column in whose
            if whose[column]
        ),
        *(
            f"CONSTRAINT {quoted(name)} {found['check constraint', relation, name].attributes['definition']}"
            for name in checks
            if checks[name]
        ),
    ]
    inherits = f" INHERITS ({', '.join(fact.attributes['parent'] for fact in parents)})" if parents else ""
    return [
        f"CREATE TABLE {relation} ({', '.join(both)}){inherits}",
        *(
            statement
            for column in columns
            for statement in (
                _setting(relation, column, found, inherited.get("not null") or ())
                if column in whose
                else restoring(relation, column, found)
            )
        ),
        only_what_is_granted(relation),
        *(statement for fact in others for statement in fact.create),
    ]


def _setting(relation: str, column: str, found: Facts, not_null: Collection[str]) -> Iterator[str]:
    """Give the statements for what an inherited column has of its own.

    :param not_null: columns for which NULL is refused as their parents have it.
    """
    of_column = [fact for fact in found.values() if fact.on == relation and fact.column == column]
    kinds = [fact.kind for fact in of_column]
    alter = f"ALTER TABLE {relation} ALTER COLUMN {quoted(column)}"
    if "default" not in kinds and "generated column" not in kinds:
        yield f"{alter} DROP DEFAULT"
    for fact in of_column:
        if fact.kind == "not null":
            # There are no rows yet.
            if fact.attributes["value"] == "true" and column not in not_null:
                yield f"{alter} SET NOT NULL"
        elif fact.kind == "sequence":
            yield from fact.create if fact.attributes["owned"] else ()
        elif fact.kind not in ("type", "generated column") and not (fact.kind in _USUAL and _is_usual(fact)):
            yield from fact.create


def _comes_with_its_column(fact: Fact) -> bool:
    # A sequence that it does not own stays while it is away.
    return fact.column is not None


def _is_usual(fact: Fact) -> bool:
    if fact.kind == "row security":
        return not any(fact.attributes.values())
    return fact.kind in _USUAL and fact.attributes["value"] == _USUAL[fact.kind]


def restoring(relation: str, column: str, found: Facts) -> Sequence[str]:
    """Give the statements that make a column again; none where nothing is known of it.

    :param relation: the table, as statements say it.
    """
    of_column = [fact for fact in found.values() if fact.on == relation and fact.column == column]
    kinds = {fact.kind: fact for fact in of_column}
    if "type" not in kinds:
        return []
    before: list[str] = []
    after: list[str] = []
    parts = [str(kinds["type"].attributes["value"])]
    # In one statement, so that rows that are there get a value before NULL is refused.
    if "generated column" in kinds:
        # The first statement drops the column.
        parts += kinds["generated column"].create[1].partition(" GENERATED ")[1:]
    if "identity" in kinds:
        parts.append(kinds["identity"].create[-1].partition(" ADD ")[2])
    if "default" in kinds:
        parts.append(kinds["default"].create[0].partition(" SET ")[2])
    if kinds["not null"].attributes["value"] == "true":
        parts.append("NOT NULL")
    elif kinds["not null"].attributes["value"] != "false":
        after += kinds["not null"].create
    for fact in of_column:
        if fact.kind == "sequence" and fact.attributes["owned"]:
            before.append(fact.create[0])
            after += fact.create[1:]
        elif fact.kind in ("identity sequence", "sequence persistence", "column option") or (
            fact.kind in _USUAL and not _is_usual(fact)
        ):
            after += fact.create
    definition = " ".join(part.strip() for part in parts)
    return [
        *before,
        f"ALTER TABLE {relation} ADD COLUMN IF NOT EXISTS {quoted(column)} {definition}",
        *after,
    ]
