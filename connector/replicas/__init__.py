"""Several connectors as replicas: a shared journal in PostgreSQL, who owns which lane, and the lease on it.

ADR 0036 has the whole picture. From the outside in:

1. `connector.replicas.order`: claims a message's position, then has it published or appends it behind the owner's rows.
2. `connector.replicas.journal`: the journal that delivery works with, by the database; `connector.replicas.lanes`: what
   this replica knows of its lanes.
3. `connector.replicas.batches` and `connector.replicas.batch`: what is asked meanwhile is one statement, the function
   ``weda_apply_batch`` in ``migrations/``.
4. `connector.replicas.membership`: renews the lease and takes over lanes whose owner is gone (ADR 0037);
   `connector.replicas.lease`: until when this replica may publish; `connector.replicas.reachability`: whether Kafka
   answers it, and others.
5. `connector.replicas.database`: the database, whatever its client; `connector.replicas.connections`: makes connections
   to it; `connector.replicas.postgres`: one by psycopg; `connector.replicas.explain`: why it cannot be reached;
   `connector.replicas.migrate`: its migrations.
"""
