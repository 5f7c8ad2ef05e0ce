"""A journal in PostgreSQL that several connectors share."""
