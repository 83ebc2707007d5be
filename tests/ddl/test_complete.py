"""Every column of the catalogs that are compared is compared, derived from what is, or ignored for a reason.

A column that a new version of PostgreSQL brings is none of the three, and fails here.
"""

# SQL reads better in its own lines.
# ruff: noqa: E501

from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from tests.databases import Database


@dataclass(frozen=True)
class Columns:
    """The columns of one catalog.

    :param compared: those that are read, by themselves or in what PostgreSQL prints.
    :param derived: those that cannot differ alone, and what they follow from.
    :param ignored: those that may differ, and why nobody minds.
    """

    compared: str
    derived: Mapping[str, str]
    ignored: Mapping[str, str]

    @property
    def all(self) -> set[str]:
        return {*self.compared.split(), *self.derived, *self.ignored}


_COUNT = "counts what is compared itself"
_OWN = "names the row, and differs in every database"
_PLACE = "placement is a matter of the server"
_MEASURED = "measured by VACUUM and ANALYZE"
_ROW = "says which table or function it belongs to"
_RESOLVED = "looked up again from the printed definition"
_OWN_TOO = (
    "no statement says again that what is inherited is not a child's own too, but the one that makes the child: "
    "so is one restored that was dropped"
)
_DEFINITION = "follows from pg_get_constraintdef"

CATALOGS = {
    "pg_class": Columns(
        compared="relname relnamespace reloftype relowner relpersistence relkind relrowsecurity relforcerowsecurity "
        "relreplident relispartition relacl",
        derived={
            "reltype": "of the table itself",
            "relam": "there is one access method for tables; that of an index is in pg_get_indexdef",
            "reltoastrelid": "of the columns' types",
            "relhasindex": _COUNT,
            "relnatts": _COUNT,
            "relchecks": _COUNT,
            "relhasrules": _COUNT,
            "relhastriggers": _COUNT,
            "relhassubclass": "of pg_inherits, which is compared",
            "relpartbound": "of a partition, which inheritance shows",
            "relisshared": "of catalogs only",
            "relispopulated": "of materialized views only",
        },
        ignored={
            "oid": _OWN,
            "relfilenode": _PLACE,
            "reltablespace": _PLACE,
            "relrewrite": "set while a table is rewritten",
            "relpages": _MEASURED,
            "reltuples": _MEASURED,
            "relallvisible": _MEASURED,
            "relallfrozen": _MEASURED,
            "relfrozenxid": _MEASURED,
            "relminmxid": _MEASURED,
            "reloptions": "compared where declared; others tune one database",
        },
    ),
    "pg_attribute": Columns(
        compared="attname atttypid attstattarget atttypmod attstorage attcompression attnotnull attidentity attgenerated "
        "attcollation attacl attoptions",
        derived={
            "attrelid": _ROW,
            "attlen": "of the type",
            "attbyval": "of the type",
            "attalign": "of the type",
            "atthasdef": "of pg_attrdef, which is compared",
            "attinhcount": "of pg_inherits, which is compared",
        },
        ignored={
            "attislocal": _OWN_TOO,
            "attnum": "the order of columns depends on the order of revisions",
            "attndims": "not enforced, and differs after a dump",
            "attcacheoff": "always -1 on disk",
            "atthasmissing": "how a default is stored for old rows",
            "attmissingval": "how a default is stored for old rows",
            "attisdropped": "a dropped column is gone",
            "attfdwoptions": "of foreign tables only",
        },
    ),
    "pg_index": Columns(
        compared="indisunique indnullsnotdistinct indisclustered indisvalid indisready indislive indisreplident indkey "
        "indcollation indclass indoption indexprs indpred",
        derived={
            "indrelid": _ROW,
            "indnatts": _COUNT,
            "indnkeyatts": _COUNT,
            "indisprimary": "of its constraint, which is compared",
            "indisexclusion": "of its constraint, which is compared",
            "indimmediate": "of its constraint, which is compared",
        },
        ignored={"indexrelid": _OWN, "indcheckxmin": "passes with old transactions"},
    ),
    "pg_constraint": Columns(
        compared="conname contype condeferrable condeferred conenforced convalidated confrelid confupdtype confdeltype "
        "confmatchtype connoinherit conperiod conkey confkey conexclop confdelsetcols conbin",
        derived={
            "connamespace": "that of the table",
            "conrelid": _ROW,
            "contypid": "of domains only",
            "conindid": "of its name",
            "conparentid": "of partitions only",
            "coninhcount": "of pg_inherits, which is compared",
            "conpfeqop": _DEFINITION,
            "conppeqop": _DEFINITION,
            "conffeqop": _DEFINITION,
        },
        ignored={"oid": _OWN, "conislocal": _OWN_TOO},
    ),
    "pg_trigger": Columns(
        compared="tgname tgfoid tgtype tgenabled tgconstraint tgdeferrable tginitdeferred tgattr tgargs tgqual tgoldtable "
        "tgnewtable tgconstrrelid",
        derived={
            "tgrelid": _ROW,
            "tgparentid": "of partitions only",
            "tgisinternal": "its constraint is compared, with whether its triggers are enabled",
            "tgconstrindid": "of its constraint",
            "tgnargs": _COUNT,
        },
        ignored={"oid": _OWN},
    ),
    "pg_policy": Columns(
        compared="polname polcmd polpermissive polroles polqual polwithcheck",
        derived={"polrelid": _ROW},
        ignored={"oid": _OWN},
    ),
    "pg_proc": Columns(
        compared="proname pronamespace proowner prolang procost prorows prosupport prokind prosecdef proleakproof "
        "proisstrict proretset provolatile proparallel prorettype proargtypes proallargtypes proargmodes proargnames "
        "proargdefaults protrftypes prosrc probin prosqlbody proconfig proacl",
        derived={
            "provariadic": "of the arguments' modes",
            "pronargs": _COUNT,
            "pronargdefaults": _COUNT,
        },
        ignored={"oid": _OWN},
    ),
    "pg_statistic_ext": Columns(
        compared="stxname stxnamespace stxstattarget stxkeys stxkind stxexprs",
        derived={"stxrelid": _ROW},
        ignored={
            "oid": _OWN,
            "stxowner": "changes nobody's access",
        },
    ),
    "pg_sequence": Columns(
        compared="seqtypid seqstart seqincrement seqmax seqmin seqcache seqcycle",
        derived={"seqrelid": _ROW},
        ignored={},
    ),
    "pg_rewrite": Columns(
        compared="rulename ev_type ev_enabled is_instead ev_qual ev_action",
        derived={"ev_class": _ROW},
        ignored={"oid": _OWN},
    ),
    "pg_default_acl": Columns(
        compared="defaclrole defaclnamespace defaclobjtype defaclacl",
        derived={},
        ignored={"oid": _OWN},
    ),
}
# Not on every version that is supported.
_BY_VERSION = {
    "pg_class": {"relallfrozen"},
    "pg_attribute": {"attcacheoff"},
    "pg_constraint": {"conenforced", "conperiod"},
}


@pytest.mark.parametrize("catalog", CATALOGS)
def test_every_column_is_accounted_for(catalog: str, empty: Database) -> None:
    found = {
        name
        for (name,) in empty.execute(
            f"SELECT attname FROM pg_attribute WHERE attrelid = '{catalog}'::regclass AND attnum > 0 AND NOT attisdropped"
        )
    }

    assert found - CATALOGS[catalog].all == set()
    assert CATALOGS[catalog].all - found <= _BY_VERSION.get(catalog, set())


@pytest.mark.parametrize("catalog", CATALOGS)
def test_a_column_is_accounted_for_once(catalog: str) -> None:
    columns = CATALOGS[catalog]

    assert len(columns.all) == len(columns.compared.split()) + len(columns.derived) + len(columns.ignored)
