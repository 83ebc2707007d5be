<%!
    def in_double_quotes(value):
        text = repr(value)
        return text if '"' in text or "\\" in text else text.replace("'", '"')

    def body(statements):
        """The statements, without the comments that Alembic puts around them."""
        lines = [line for line in (statements or "").splitlines() if not line.lstrip().startswith("# ###")]
        if all(line.lstrip().startswith("#") for line in lines):
            lines.append("    pass")
        return "\n".join(lines).strip()
%>\
<%
    upgrade, downgrade = body(upgrades), body(downgrades)
    import_lines = sorted(["from alembic import op", *(imports or "").splitlines()])
    if "sa." in upgrade + downgrade:
        import_lines.insert(0, "import sqlalchemy as sa")
    # What autogenerate knows of the revision.
    summary = context.get("summary")
    changes = f"{summary.changes}\n\n" if summary and summary.changes else ""
    locks = summary.locks if changes else "Locks:"
    losses = summary.losses if changes else {}
%>\
"""${message[:1].upper() + message[1:].rstrip(".")}.

${changes}Why:
${locks}
"""

${"\n".join(import_lines)}

revision = ${in_double_quotes(up_revision)}
down_revision = ${in_double_quotes(down_revision)}
branch_labels = ${in_double_quotes(branch_labels)}
depends_on = ${in_double_quotes(depends_on)}
% if losses:
downgrade_losses = {
% for what, query in losses.items():
    ${in_double_quotes(what)}: (
        ${in_double_quotes(query)}
    ),
% endfor
}
% endif


def upgrade() -> None:
    ${upgrade}


def downgrade() -> None:
    ${downgrade}
