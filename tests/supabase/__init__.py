"""A Supabase project around the application, as far as plain PostgreSQL has it, and its database linter."""
