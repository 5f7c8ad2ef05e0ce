"""Several connectors as replicas: a shared journal in PostgreSQL, the owners of lanes, and leases.

A replica becomes the owner of a lane by the first claim of a free lane, or by taking over a lane whose owner is dead,
with a claim or with a renewal of its own lease. Only the owner publishes. Every other replica appends what it receives
for the lane as rows, for the owner to publish; if the owner has released the lane or died meanwhile, the append
makes this replica the owner. ADR 0036 has the whole picture. In reading order:

1. `connector.replicas.order`: claims a message's position, then has it published or appends it behind the owner's rows.
2. `connector.replicas.journal`: the journal that delivery works with, in the database.
3. `connector.replicas.lanes`: the lanes in use by this replica, which it does not release.
4. `connector.replicas.batches`: gathers requests; `connector.replicas.batch`: executes them as one statement, the
   function ``weda_apply_batch`` in ``migrations/``.
5. `connector.replicas.membership`: renews the lease and takes over lanes whose owner is dead (ADR 0037);
   `connector.replicas.lease`: until when this replica may publish; `connector.replicas.reachability`: whether Kafka
   answers this replica and others.
6. `connector.replicas.database`: the protocol of a connection, its errors, and whether the database answers;
   `connector.replicas.postgres`: a connection through psycopg, which `connector.replicas.connections` loads on demand;
   `connector.replicas.explain`: explains libpq's errors.
7. `connector.replicas.migrate`: creates the tables.
"""
