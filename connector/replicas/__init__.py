"""Several connectors as replicas: a shared journal in PostgreSQL, who owns which lane, and the lease on it."""
