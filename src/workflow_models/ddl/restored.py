"""How a column that is dropped is made again as it was, its values aside."""

from collections.abc import Sequence

from .facts import Facts
from .item import quoted

# What PostgreSQL gives a column of which nothing is said.
_USUAL = {"storage": "default", "compression": "default", "statistics target": "-1", "column comment": None}


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
            fact.kind in _USUAL and fact.attributes["value"] != _USUAL[fact.kind]
        ):
            after += fact.create
    definition = " ".join(part.strip() for part in parts)
    return [
        *before,
        f"ALTER TABLE {relation} ADD COLUMN IF NOT EXISTS {quoted(column)} {definition}",
        *after,
    ]
