"""What Supabase's database linter asks of tables, policies, functions and indexes, over the catalogs.

Each lint is ours, after what the linter's documentation says that its lint of that name means; some are
stricter. Left out are those that read how a database is used (unused_index, table_bloat), and those about
what the package has none of: queues, storage buckets, versions of extensions, replication slots.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Lint:
    """A query for what is wrong, a line each; something that it must find; what of ours it finds, and why."""

    name: str
    query: str
    bad: str
    finding: str
    exceptions: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


_TABLES = """
    pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'auth', 'extensions')
"""
# The schemas that the API serves. What is not granted in them is not exposed.
_EXPOSED = "n.nspname IN ('public', 'graphql_public')"
_READABLE = """
    (has_table_privilege('anon', c.oid, 'SELECT') OR has_table_privilege('authenticated', c.oid, 'SELECT'))
"""
_POLICIES = f"""
    {_TABLES} JOIN pg_policy AS p ON p.polrelid = c.oid
    CROSS JOIN LATERAL (
        SELECT pg_get_expr(p.polqual, p.polrelid) AS using, pg_get_expr(p.polwithcheck, p.polrelid) AS check
    ) AS e
"""
_FOR_USERS = """
    p.polroles && ARRAY[0, 'anon'::regrole, 'authenticated'::regrole]::oid[]
"""
_TABLE = "format('%I.%I', n.nspname, c.relname)"
_POLICY = "format('%I.%I: %s', n.nspname, c.relname, p.polname)"
_FUNCTION = "format('%I.%I', n.nspname, f.proname)"
_FUNCTIONS = """
    pg_proc AS f JOIN pg_namespace AS n ON n.oid = f.pronamespace
        AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'auth', 'extensions')
"""


def _definer_function_of(role: str) -> str:
    return f"""
        SELECT {_FUNCTION} FROM {_FUNCTIONS}
        WHERE f.prosecdef AND has_function_privilege('{role}', f.oid, 'EXECUTE')
    """


def _shown_to(role: str) -> str:
    return f"""
        SELECT {_TABLE} FROM {_TABLES}
        WHERE c.relkind IN ('r', 'v', 'm', 'f') AND {_EXPOSED}
            AND has_table_privilege('{role}', c.oid, 'SELECT')
    """


_LOOKED_UP = "an anonymous user has no profile, and so sees nothing"

LINTS = (
    Lint(
        "unindexed_foreign_keys",
        f"""
        SELECT format('%I.%I: %s', n.nspname, c.relname, k.conname)
        FROM {_TABLES} JOIN pg_constraint AS k ON k.conrelid = c.oid AND k.contype = 'f'
        WHERE NOT EXISTS (
            SELECT FROM pg_index AS i
            WHERE i.indrelid = c.oid AND i.indisvalid
                AND (i.indkey::smallint[])[0:cardinality(k.conkey) - 1] = k.conkey
                AND coalesce(pg_get_expr(i.indpred, c.oid), '') ~ '^(\\(\\w+ IS NOT NULL\\))?$')
        """,
        "CREATE TABLE public.bad (id int PRIMARY KEY, parent int REFERENCES public.bad)",
        "public.bad: bad_parent_fkey",
        {
            "public.workflow_execution_logs: workflow_execution_logs_workflow_id_organization_id_fkey": (
                "a workflow has one organization: the index on workflow_id finds the same rows"
            ),
            "public.workflow_definitions: workflow_definitions_created_by_fkey": (
                "read only when a user is deleted; there are few workflows"
            ),
            "public.profiles: profiles_organization_id_fkey": "a stand-in, which stays small",
        },
    ),
    Lint(
        "auth_users_exposed",
        f"""
        SELECT DISTINCT {_TABLE}
        FROM {_TABLES} JOIN pg_rewrite AS r ON r.ev_class = c.oid
            JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
        WHERE c.relkind IN ('v', 'm') AND d.refobjid = 'auth.users'::regclass AND {_EXPOSED} AND {_READABLE}
        """,
        "CREATE VIEW public.bad AS SELECT id FROM auth.users; GRANT SELECT ON public.bad TO authenticated",
        "public.bad",
    ),
    Lint(
        # Calls that take nothing from the row. Theirs knows auth.*() and current_setting() only.
        "auth_rls_initplan",
        f"""
        SELECT {_POLICY} FROM {_POLICIES}
        WHERE regexp_replace(
            concat_ws(' ', e.using, e.check), '\\( SELECT [\\w.]+\\([^()]*\\)[^()]*\\)', '', 'g'
        ) ~ '\\m\\w+\\.\\w+\\(\\)|\\mcurrent_setting\\('
        """,
        """
        CREATE TABLE public.bad (id uuid PRIMARY KEY);
        CREATE POLICY bare ON public.bad USING (id = auth.uid());
        CREATE POLICY wrapped ON public.bad USING (id = (SELECT auth.uid()))
        """,
        "public.bad: bare",
    ),
    Lint(
        "no_primary_key",
        f"""
        SELECT {_TABLE} FROM {_TABLES}
        WHERE c.relkind IN ('r', 'p')
            AND NOT EXISTS (SELECT FROM pg_constraint AS k WHERE k.conrelid = c.oid AND k.contype = 'p')
        """,
        "CREATE TABLE public.bad (id int)",
        "public.bad",
    ),
    Lint(
        # A role by itself: one that inherits another's policies is not looked at.
        "multiple_permissive_policies",
        f"""
        SELECT format('%I.%I: %s %s', n.nspname, c.relname, r.rolname, command)
        FROM {_POLICIES} JOIN pg_roles AS r ON r.oid = ANY (p.polroles) OR p.polroles = '{{0}}'
            CROSS JOIN unnest(ARRAY['r', 'a', 'w', 'd']::"char"[]) AS command
        WHERE p.polpermissive AND p.polcmd IN (command, '*') AND NOT r.rolbypassrls AND r.rolname !~ '^pg_'
        GROUP BY n.nspname, c.relname, r.rolname, command HAVING count(*) > 1
        """,
        """
        CREATE TABLE public.bad (id uuid PRIMARY KEY);
        CREATE POLICY one ON public.bad FOR SELECT TO anon USING (true);
        CREATE POLICY two ON public.bad TO anon, authenticated USING (true)
        """,
        "public.bad: anon r",
    ),
    Lint(
        "policy_exists_rls_disabled",
        f"SELECT {_POLICY} FROM {_POLICIES} WHERE NOT c.relrowsecurity",
        "CREATE TABLE public.bad (id int PRIMARY KEY); CREATE POLICY reads ON public.bad USING (id > 0)",
        "public.bad: reads",
    ),
    Lint(
        "rls_enabled_no_policy",
        f"""
        SELECT {_TABLE} FROM {_TABLES}
        WHERE c.relrowsecurity AND NOT EXISTS (SELECT FROM pg_policy AS p WHERE p.polrelid = c.oid)
        """,
        "CREATE TABLE public.bad (id int PRIMARY KEY); ALTER TABLE public.bad ENABLE ROW LEVEL SECURITY",
        "public.bad",
        dict.fromkeys(
            ("public.organizations", "public.profiles"),
            "a stand-in, in a project without the application: for nobody, and meant so",
        ),
    ),
    Lint(
        "duplicate_index",
        f"""
        SELECT format('%I.%I: %s', n.nspname, c.relname, string_agg(i.relname, ', ' ORDER BY i.relname))
        FROM {_TABLES} JOIN pg_index AS x ON x.indrelid = c.oid JOIN pg_class AS i ON i.oid = x.indexrelid
        GROUP BY n.nspname, c.relname, replace(pg_get_indexdef(i.oid), quote_ident(i.relname), '')
        HAVING count(*) > 1
        """,
        """
        CREATE TABLE public.bad (id int PRIMARY KEY, name text);
        CREATE INDEX one ON public.bad (name);
        CREATE INDEX two ON public.bad (name)
        """,
        "public.bad: one, two",
    ),
    Lint(
        "invalid_index",
        f"""
        SELECT format('%I.%I: %s', n.nspname, c.relname, x.indexrelid::regclass)
        FROM {_TABLES} JOIN pg_index AS x ON x.indrelid = c.oid
        WHERE NOT x.indisvalid
        """,
        """
        CREATE TABLE public.bad (id int PRIMARY KEY);
        UPDATE pg_index SET indisvalid = false WHERE indrelid = 'public.bad'::regclass
        """,
        "public.bad: bad_pkey",
    ),
    Lint(
        "security_definer_view",
        f"""
        SELECT {_TABLE} FROM {_TABLES}
        WHERE c.relkind = 'v' AND {_EXPOSED} AND {_READABLE}
            AND NOT coalesce(c.reloptions && ARRAY['security_invoker=true', 'security_invoker=on'], false)
        """,
        """
        CREATE VIEW public.bad AS SELECT * FROM public.workflow_execution_logs;
        CREATE VIEW public.good WITH (security_invoker = on) AS SELECT * FROM public.workflow_execution_logs;
        GRANT SELECT ON public.bad, public.good TO authenticated
        """,
        "public.bad",
    ),
    Lint(
        "function_search_path_mutable",
        f"""
        SELECT {_FUNCTION} FROM {_FUNCTIONS}
        WHERE NOT EXISTS (SELECT FROM unnest(f.proconfig) AS setting WHERE setting LIKE 'search_path=%')
        """,
        "CREATE FUNCTION public.bad() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "public.bad",
        {
            "workflow_private.matches": (
                "asked once a row, where a SET would cost; each operator and type in it is qualified instead"
            ),
            "workflow_private.worker_organization": (
                "inlined, which a SET would prevent; all in it is qualified instead"
            ),
        },
    ),
    Lint(
        # A project has it only once anonymous sign-ins are switched on.
        "auth_allow_anonymous_sign_ins",
        f"""
        SELECT DISTINCT {_TABLE} FROM {_POLICIES}
        WHERE p.polpermissive AND {_FOR_USERS} AND concat_ws(' ', e.using, e.check) NOT LIKE '%is_anonymous%'
        """,
        """
        CREATE TABLE public.bad (id int PRIMARY KEY);
        CREATE POLICY reads ON public.bad TO authenticated USING (id > 0)
        """,
        "public.bad",
        {"public.workflow_definitions": _LOOKED_UP, "public.workflow_execution_logs": _LOOKED_UP},
    ),
    Lint(
        # What it finds most often is Alembic's version table.
        "rls_disabled_in_public",
        f"""
        SELECT {_TABLE} FROM {_TABLES}
        WHERE c.relkind IN ('r', 'p') AND NOT c.relrowsecurity AND {_EXPOSED}
        """,
        "CREATE TABLE public.alembic_version (version_num text PRIMARY KEY)",
        "public.alembic_version",
    ),
    Lint(
        "extension_in_public",
        "SELECT extname::text FROM pg_extension WHERE extnamespace = 'public'::regnamespace",
        "UPDATE pg_extension SET extnamespace = 'public'::regnamespace WHERE extname = 'plpgsql'",
        "plpgsql",
    ),
    Lint(
        "rls_references_user_metadata",
        f"SELECT {_POLICY} FROM {_POLICIES} WHERE concat_ws(' ', e.using, e.check) LIKE '%user_meta%'",
        """
        CREATE TABLE public.bad (id text PRIMARY KEY);
        CREATE POLICY reads ON public.bad
            USING (id = (SELECT auth.jwt() -> 'user_metadata' ->> 'organization_id'))
        """,
        "public.bad: reads",
    ),
    Lint(
        "materialized_view_in_api",
        f"SELECT {_TABLE} FROM {_TABLES} WHERE c.relkind = 'm' AND {_EXPOSED} AND {_READABLE}",
        """
        CREATE MATERIALIZED VIEW public.bad AS SELECT id FROM public.workflow_definitions;
        GRANT SELECT ON public.bad TO anon
        """,
        "public.bad",
    ),
    Lint(
        "foreign_table_in_api",
        f"SELECT {_TABLE} FROM {_TABLES} WHERE c.relkind = 'f' AND {_EXPOSED} AND {_READABLE}",
        """
        CREATE FOREIGN DATA WRAPPER elsewhere;
        CREATE SERVER elsewhere FOREIGN DATA WRAPPER elsewhere;
        CREATE FOREIGN TABLE public.bad (id int) SERVER elsewhere;
        GRANT SELECT ON public.bad TO anon
        """,
        "public.bad",
    ),
    Lint(
        # The types that an upgrade of PostgreSQL itself refuses.
        "unsupported_reg_types",
        f"""
        SELECT format('%I.%I: %s', n.nspname, c.relname, a.attname)
        FROM {_TABLES} JOIN pg_attribute AS a ON a.attrelid = c.oid AND NOT a.attisdropped
        WHERE c.relkind IN ('r', 'p') AND a.atttypid IN (
            'regcollation'::regtype, 'regconfig'::regtype, 'regdictionary'::regtype,
            'regnamespace'::regtype, 'regoper'::regtype, 'regoperator'::regtype, 'regproc'::regtype,
            'regprocedure'::regtype)
        """,
        "CREATE TABLE public.bad (id int PRIMARY KEY, language regconfig, kind regtype)",
        "public.bad: language",
    ),
    Lint(
        # Supabase may drop a unique key of auth's tables; their primary keys stay.
        "fkey_to_auth_unique",
        f"""
        SELECT format('%I.%I: %s', n.nspname, c.relname, k.conname)
        FROM {_TABLES} JOIN pg_constraint AS k ON k.conrelid = c.oid AND k.contype = 'f'
            JOIN pg_class AS referenced ON referenced.oid = k.confrelid
            JOIN pg_index AS i ON i.indexrelid = k.conindid
        WHERE referenced.relnamespace = 'auth'::regnamespace AND NOT i.indisprimary
        """,
        "CREATE TABLE public.bad (email text PRIMARY KEY REFERENCES auth.users (email))",
        "public.bad: bad_email_fkey",
    ),
    Lint(
        "sensitive_columns_exposed",
        f"""
        SELECT format('%I.%I: %s', n.nspname, c.relname, a.attname)
        FROM {_TABLES} JOIN pg_attribute AS a ON a.attrelid = c.oid AND NOT a.attisdropped
        WHERE c.relkind IN ('r', 'p') AND NOT c.relrowsecurity AND {_EXPOSED} AND {_READABLE}
            AND a.attname ~ '(password|passwd|secret|token|api_?key|private_key|ssn|card_number|iban|cvv)'
        """,
        "CREATE TABLE public.bad (id int PRIMARY KEY, api_key text); GRANT SELECT ON public.bad TO anon",
        "public.bad: api_key",
    ),
    Lint(
        # Theirs passes over SELECT.
        "rls_policy_always_true",
        f"""
        SELECT {_POLICY} FROM {_POLICIES}
        WHERE p.polpermissive AND {_FOR_USERS} AND (e.using = 'true' OR e.check = 'true')
        """,
        """
        CREATE TABLE public.bad (id int PRIMARY KEY);
        CREATE POLICY writes ON public.bad FOR INSERT WITH CHECK (true)
        """,
        "public.bad: writes",
    ),
    Lint(
        "rls_policy_null_auth_disjunct",
        f"""
        SELECT {_POLICY} FROM {_POLICIES}
        WHERE p.polpermissive AND {_FOR_USERS}
            AND concat_ws(' ', e.using, e.check)
                ~ '\\m(auth\\.\\w+\\(\\)|current_setting\\([^()]*\\))( AS \\w+\\))? IS NULL'
        """,
        """
        CREATE TABLE public.bad (id uuid PRIMARY KEY);
        CREATE POLICY reads ON public.bad USING ((SELECT auth.uid()) IS NULL OR id = (SELECT auth.uid()))
        """,
        "public.bad: reads",
    ),
    Lint(
        # Found in a project only where pg_graphql is installed, as is the next.
        "pg_graphql_anon_table_exposed",
        _shown_to("anon"),
        "CREATE TABLE public.bad (id int PRIMARY KEY); GRANT SELECT ON public.bad TO anon",
        "public.bad",
    ),
    Lint(
        "pg_graphql_authenticated_table_exposed",
        _shown_to("authenticated"),
        "CREATE TABLE public.bad (id int PRIMARY KEY); GRANT SELECT ON public.bad TO authenticated",
        "public.bad",
        dict.fromkeys(
            ("public.workflow_definitions", "public.workflow_execution_logs"),
            "users read it: that is what it is for",
        ),
    ),
    Lint(
        "anon_security_definer_function_executable",
        _definer_function_of("anon"),
        "CREATE FUNCTION public.bad() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'",
        "public.bad",
    ),
    Lint(
        "authenticated_security_definer_function_executable",
        _definer_function_of("authenticated"),
        """
        CREATE FUNCTION public.bad() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1';
        REVOKE EXECUTE ON FUNCTION public.bad FROM PUBLIC;
        GRANT EXECUTE ON FUNCTION public.bad TO authenticated
        """,
        "public.bad",
        {
            "workflow_private.identity": (
                "policies call it; its schema is not served by the API, and it tells the caller's own profile"
            ),
            "workflow_private.sealed_identity": (
                "tenant sessions call it; it tells the same, with a seal that holds for one transaction"
            ),
        },
    ),
    Lint(
        "autovacuum_disabled",
        f"""
        SELECT {_TABLE} FROM {_TABLES}
        WHERE 'autovacuum_enabled=false' = ANY (c.reloptions)
        """,
        "CREATE TABLE public.bad (id int PRIMARY KEY) WITH (autovacuum_enabled = false)",
        "public.bad",
    ),
)  # fmt: skip
