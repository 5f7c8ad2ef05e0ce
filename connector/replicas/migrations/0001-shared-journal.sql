-- The journal that replicas share. Order, ownership and fencing: docs/adr/0036, 0037.

CREATE TABLE weda_replica (
    replica_id uuid PRIMARY KEY,
    since timestamptz NOT NULL DEFAULT clock_timestamp(),
    lease_until timestamptz NOT NULL,
    last_batch bigint NOT NULL DEFAULT 0,
    reaches_kafka boolean NOT NULL DEFAULT false,
    reached_kafka_at timestamptz
)
WITH (fillfactor = 50);

COMMENT ON TABLE weda_replica IS 'Replicas that are alive. One that is not in here is dead for good; its lanes are orphans.';
COMMENT ON COLUMN weda_replica.last_batch IS 'The number of the last batch that was applied for it.';
COMMENT ON COLUMN weda_replica.reaches_kafka IS 'Whether the brokers answer it. docs/adr/0041.';
COMMENT ON COLUMN weda_replica.reached_kafka_at IS 'When the brokers last answered it, by this database''s clock. docs/adr/0046.';

CREATE TABLE weda_lane (
    lane bytea PRIMARY KEY,
    owner uuid NOT NULL,
    rows_in_lane integer NOT NULL DEFAULT 0,
    bytes bigint NOT NULL DEFAULT 0
)
WITH (
    fillfactor = 60,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 2000,
    autovacuum_vacuum_insert_threshold = -1,
    autovacuum_vacuum_cost_delay = 0
);

COMMENT ON TABLE weda_lane IS 'Lanes, such as instances, of which something is on its way to Kafka; only the owner, a replica, publishes it.';

CREATE INDEX weda_lane_by_owner ON weda_lane (owner, lane);

CREATE SEQUENCE weda_sequence AS bigint;

CREATE TABLE weda_row (
    sequence bigint PRIMARY KEY,
    lane bytea NOT NULL,
    source text NOT NULL,
    waits_since bigint NOT NULL,
    content bytea NOT NULL
)
WITH (
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 2000,
    autovacuum_vacuum_cost_delay = 0,
    toast.autovacuum_vacuum_scale_factor = 0.02,
    toast.autovacuum_vacuum_threshold = 2000,
    toast.autovacuum_vacuum_cost_delay = 0
);

COMMENT ON TABLE weda_row IS 'What is accepted and not yet published, in the order of sequence within a lane.';
COMMENT ON COLUMN weda_row.waits_since IS 'Epoch milliseconds: when it was received; of a reprocessed dead letter, when that was reprocessed.';

CREATE INDEX weda_row_by_lane ON weda_row (lane, sequence);

CREATE TABLE weda_dedup_key (
    key bytea PRIMARY KEY,
    fingerprint bytea NOT NULL,
    owner uuid,
    seen_at timestamptz NOT NULL
)
WITH (
    fillfactor = 80,
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0
);

COMMENT ON TABLE weda_dedup_key IS 'Messages seen within the window: with an owner, a replica, one is pending, without one it is safe.';

CREATE INDEX weda_dedup_key_by_age ON weda_dedup_key (seen_at);

CREATE TABLE weda_note (
    name text PRIMARY KEY,
    value bigint NOT NULL
);

COMMENT ON TABLE weda_note IS 'Named numbers that outlive replicas, such as the latest time that ids may have used; the greatest wins.';

CREATE FUNCTION weda_renew_lease(replica uuid, lease interval, lane_limit integer)
RETURNS TABLE (own_rows bigint, bytes bigint)
LANGUAGE plpgsql AS $$
-- Renew the lease of a replica, remove the replicas whose lease has run out, and take over some of the lanes that they leave. Returns
-- the number of rows in the replica's lanes, and the bytes of all lanes.
DECLARE
    orphans bytea[];
BEGIN
    UPDATE weda_replica r SET lease_until = clock_timestamp() + lease WHERE r.replica_id = replica;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the lease of % has run out', replica USING ERRCODE = 'WL001';
    END IF;
    DELETE FROM weda_replica r WHERE r.lease_until <= clock_timestamp() AND r.replica_id IN (
        SELECT e.replica_id FROM weda_replica e WHERE e.lease_until <= clock_timestamp() FOR UPDATE SKIP LOCKED
    );
    -- Two statements: whether an owner lives is looked up under a snapshot that is younger than the lock on its lane.
    orphans := ARRAY(
        SELECT l.lane FROM weda_lane l WHERE l.owner IN (SELECT weda_dead_owners())
        LIMIT lane_limit FOR UPDATE SKIP LOCKED
    );
    DELETE FROM weda_lane l WHERE l.lane = ANY (orphans) AND l.rows_in_lane = 0 AND l.owner <> replica
    AND NOT EXISTS (SELECT FROM weda_replica r WHERE r.replica_id = l.owner);
    UPDATE weda_lane l SET owner = replica WHERE l.lane = ANY (orphans) AND l.owner <> replica
    AND NOT EXISTS (SELECT FROM weda_replica r WHERE r.replica_id = l.owner);
    RETURN QUERY SELECT
        (SELECT coalesce(sum(l.rows_in_lane), 0)::bigint FROM weda_lane l WHERE l.owner = replica),
        (SELECT coalesce(sum(l.bytes), 0)::bigint FROM weda_lane l);
END $$;

CREATE FUNCTION weda_dead_owners() RETURNS SETOF uuid
LANGUAGE sql STABLE AS $$
-- Owners of lanes that are not alive: a walk from one owner to the next along the index, however many lanes they have.
WITH RECURSIVE owners(owner) AS (
    (SELECT l.owner FROM weda_lane l ORDER BY l.owner LIMIT 1)
    UNION ALL
    SELECT (SELECT l.owner FROM weda_lane l WHERE l.owner > o.owner ORDER BY l.owner LIMIT 1)
    FROM owners o WHERE o.owner IS NOT NULL
)
SELECT o.owner FROM owners o
WHERE o.owner IS NOT NULL AND NOT EXISTS (SELECT FROM weda_replica r WHERE r.replica_id = o.owner)
$$;

CREATE FUNCTION weda_claim_dedup_key(
    replica uuid, dedup_window interval, id_key bytea, content_key bytea, claimed_fingerprint bytea
)
RETURNS text
LANGUAGE plpgsql AS $$
-- Claim a dedup key: 'new', 'conflict' (its id came before with other content), 'pending' (at another replica) or
-- 'safe'. An id's first content is stored under the key of the id, every other one under a key of id and content: so the
-- ids alone decide, by a unique key, which comes first.
DECLARE
    claimed_key bytea := id_key;
    dedup_state text := 'new';
    known weda_dedup_key;
    has_expired boolean;
BEGIN
    -- It may outlive the content that came before it.
    IF EXISTS (SELECT FROM weda_dedup_key d WHERE d.key = content_key) THEN
        claimed_key := content_key;
        dedup_state := 'conflict';
    END IF;
    LOOP
        INSERT INTO weda_dedup_key (key, fingerprint, owner, seen_at)
        VALUES (claimed_key, claimed_fingerprint, replica, clock_timestamp())
        ON CONFLICT DO NOTHING;
        IF FOUND THEN
            RETURN dedup_state;
        END IF;
        SELECT * INTO known FROM weda_dedup_key d WHERE d.key = claimed_key;
        CONTINUE WHEN NOT FOUND;
        has_expired := known.owner IS NULL AND known.seen_at <= clock_timestamp() - dedup_window;
        IF known.fingerprint <> claimed_fingerprint AND NOT has_expired THEN
            claimed_key := content_key;
            dedup_state := 'conflict';
            CONTINUE;
        END IF;
        IF known.owner IS NULL AND NOT has_expired THEN
            RETURN 'safe';
        END IF;
        IF known.owner <> replica AND EXISTS (SELECT FROM weda_replica r WHERE r.replica_id = known.owner) THEN
            RETURN 'pending';
        END IF;
        UPDATE weda_dedup_key d SET owner = replica, fingerprint = claimed_fingerprint, seen_at = clock_timestamp()
        WHERE d.key = claimed_key AND d.fingerprint = known.fingerprint AND d.owner IS NOT DISTINCT FROM known.owner;
        IF FOUND THEN
            RETURN dedup_state;
        END IF;
    END LOOP;
END $$;

CREATE FUNCTION weda_expire_dedup_keys(dedup_window interval, max_dedup_keys bigint, row_limit integer) RETURNS bigint
LANGUAGE plpgsql AS $$
-- Remove dedup keys that are older than the window, and the oldest of those that are too many; one replica at a time.
-- Returns how many were removed, for whichever of the two reasons removed more.
DECLARE
    horizon timestamptz := clock_timestamp() - dedup_window;
    excess bigint;
    old bigint;
    early bigint;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('weda_expire_dedup_keys')) THEN
        RETURN 0;
    END IF;
    DELETE FROM weda_dedup_key d WHERE d.key IN (
        SELECT o.key FROM weda_dedup_key o
        WHERE o.seen_at <= horizon
        AND (o.owner IS NULL OR NOT EXISTS (SELECT FROM weda_replica r WHERE r.replica_id = o.owner))
        ORDER BY o.seen_at LIMIT row_limit FOR UPDATE SKIP LOCKED
    );
    GET DIAGNOSTICS old = ROW_COUNT;
    SELECT greatest(count(*) - max_dedup_keys, 0) INTO excess FROM weda_dedup_key;
    DELETE FROM weda_dedup_key d WHERE d.key IN (
        SELECT o.key FROM weda_dedup_key o WHERE o.owner IS NULL
        ORDER BY o.seen_at LIMIT least(excess, row_limit) FOR UPDATE SKIP LOCKED
    );
    GET DIAGNOSTICS early = ROW_COUNT;
    RETURN greatest(old, early);
END $$;

CREATE FUNCTION weda_apply_batch(
    replica uuid,
    batch_number bigint,
    dedup_window interval,
    safe_keys bytea[], safe_fingerprints bytea[],
    void_keys bytea[], void_fingerprints bytea[],
    released_lanes bytea[],
    removed_sequences bigint[],
    amended_sequences bigint[], amended_lanes bytea[], amended_contents bytea[],
    stored_sequences bigint[], stored_lanes bytea[],
    stored_id_keys bytea[], stored_content_keys bytea[], stored_fingerprints bytea[],
    stored_sources text[], stored_waits_since bigint[], stored_contents bytea[],
    note_names text[], note_values bigint[],
    claimed_lanes bytea[], claimed_id_keys bytea[], claimed_content_keys bytea[], claimed_fingerprints bytea[],
    OUT refused bigint[], OUT has_more boolean,
    OUT dedup_states text[], OUT sequences bigint[], OUT is_owner boolean[], OUT rows_in_lane integer[]
)
LANGUAGE plpgsql AS $$
-- Everything that one replica has gathered since its last batch, in one statement, and so in one transaction that never
-- waits for a network. Arrays whose names start alike have one element for each item: a null sequence among the stored
-- is drawn here, a null key means no dedup key. Locks are taken in one order: dedup keys by key, lanes by name.
DECLARE
    one record;
    needed bytea[];
    touched bytea[];
BEGIN
    -- 0. A batch whose answer was not waited for may still arrive, but not behind the one that came after it.
    UPDATE weda_replica r SET last_batch = batch_number WHERE r.replica_id = replica AND r.last_batch < batch_number;
    IF NOT FOUND AND EXISTS (SELECT FROM weda_replica r WHERE r.replica_id = replica) THEN
        RAISE EXCEPTION 'batch % of % was overtaken', batch_number, replica USING ERRCODE = 'WL002';
    ELSIF NOT FOUND THEN
        RAISE EXCEPTION 'the lease of % has run out', replica USING ERRCODE = 'WL001';
    END IF;

    -- 1. Dedup keys of messages that are safe, or known not to be; then those that are claimed.
    UPDATE weda_dedup_key d SET owner = NULL FROM unnest(safe_keys, safe_fingerprints) AS s (key, fingerprint)
    WHERE d.key = s.key AND d.fingerprint = s.fingerprint AND d.owner = replica;
    DELETE FROM weda_dedup_key d USING unnest(void_keys, void_fingerprints) AS v (key, fingerprint)
    WHERE d.key = v.key AND d.fingerprint = v.fingerprint AND d.owner = replica;
    dedup_states := array_fill('new'::text, ARRAY[cardinality(claimed_lanes)]);
    FOR one IN
        SELECT c.id_key, c.content_key, c.fingerprint, c.at
        FROM unnest(claimed_id_keys, claimed_content_keys, claimed_fingerprints) WITH ORDINALITY
        AS c (id_key, content_key, fingerprint, at)
        WHERE c.id_key IS NOT NULL ORDER BY c.id_key, c.content_key
    LOOP
        dedup_states[one.at] :=
            weda_claim_dedup_key(replica, dedup_window, one.id_key, one.content_key, one.fingerprint);
    END LOOP;

    -- 2. Lanes. Needed are those that have to exist, touched are all whose owner or rows this batch reads or changes:
    -- the needed are inserted, the touched locked, orphans among the needed taken over. Who inserts a lane owns it;
    -- a claim of a lane without a living owner takes it over. A claim of a lane that another living replica owns leaves it
    -- so, and its message becomes a row behind all that is there.
    needed := amended_lanes || ARRAY(
        SELECT s.lane FROM unnest(stored_sequences, stored_lanes) AS s (sequence, lane) WHERE s.sequence IS NULL
        UNION SELECT c.lane FROM unnest(claimed_lanes, dedup_states) AS c (lane, dedup_state)
        WHERE c.dedup_state IN ('new', 'conflict')
    );
    touched := needed || stored_lanes || released_lanes || ARRAY(
        SELECT DISTINCT r.lane FROM weda_row r WHERE r.sequence = ANY (removed_sequences || amended_sequences)
    );
    LOOP
        INSERT INTO weda_lane (lane, owner)
        SELECT DISTINCT n.lane, replica FROM unnest(needed) AS n (lane) ORDER BY n.lane
        ON CONFLICT DO NOTHING;
        PERFORM FROM weda_lane l WHERE l.lane = ANY (touched) ORDER BY l.lane FOR UPDATE;
        -- Another replica may have released a lane between the two statements.
        EXIT WHEN NOT EXISTS (
            SELECT FROM unnest(needed) AS n (lane) WHERE NOT EXISTS (SELECT FROM weda_lane l WHERE l.lane = n.lane)
        );
    END LOOP;
    -- A statement of its own: its snapshot is younger than the locks, so that it sees a replica that registered since.
    UPDATE weda_lane l SET owner = replica WHERE l.lane = ANY (needed) AND l.owner <> replica
    AND NOT EXISTS (SELECT FROM weda_replica r WHERE r.replica_id = l.owner);

    -- 3. Rows: into the replica's own lanes under the sequence that was claimed, into lanes of others behind all that is
    -- there; with each its dedup key and its note.
    refused := ARRAY(
        SELECT s.at FROM unnest(stored_sequences, stored_lanes) WITH ORDINALITY AS s (sequence, lane, at)
        WHERE s.sequence IS NOT NULL AND NOT EXISTS (
            SELECT FROM weda_lane l WHERE l.lane = s.lane AND l.owner = replica
        )
    );
    WITH stored AS (
        INSERT INTO weda_row (sequence, lane, source, waits_since, content)
        SELECT coalesce(s.sequence, nextval('weda_sequence')), s.lane, s.source, s.waits_since, s.content
        FROM unnest(stored_sequences, stored_lanes, stored_sources, stored_waits_since, stored_contents)
        WITH ORDINALITY AS s (sequence, lane, source, waits_since, content, at)
        WHERE s.at <> ALL (refused) ORDER BY s.at
        ON CONFLICT (sequence) DO NOTHING -- stored by a batch whose answer was lost
        RETURNING weda_row.lane, length(weda_row.content) AS size
    )
    UPDATE weda_lane l SET rows_in_lane = l.rows_in_lane + s.count, bytes = l.bytes + s.size
    FROM (SELECT stored.lane, count(*)::integer AS count, sum(stored.size) AS size FROM stored GROUP BY stored.lane) s
    WHERE l.lane = s.lane;
    UPDATE weda_dedup_key d SET owner = NULL
    FROM unnest(stored_id_keys, stored_content_keys, stored_fingerprints) WITH ORDINALITY
    AS s (id_key, content_key, fingerprint, at)
    WHERE s.id_key IS NOT NULL AND s.at <> ALL (refused)
    AND d.key IN (s.id_key, s.content_key) AND d.fingerprint = s.fingerprint AND d.owner = replica;
    IF cardinality(note_names) > 0 THEN
        INSERT INTO weda_note AS c (name, value)
        SELECT n.name, n.value FROM unnest(note_names, note_values) WITH ORDINALITY AS n (name, value, at)
        WHERE n.name IS NOT NULL AND n.at <> ALL (refused)
        ON CONFLICT (name) DO UPDATE SET value = greatest(c.value, excluded.value);
    END IF;

    -- 4. Rows that are amended, perhaps into another lane, and rows that are removed.
    FOR one IN
        SELECT r.sequence, r.lane, length(r.content) AS size, a.lane AS new_lane, a.content
        FROM unnest(amended_sequences, amended_lanes, amended_contents) AS a (sequence, lane, content)
        JOIN weda_row r ON r.sequence = a.sequence JOIN weda_lane l ON l.lane = r.lane AND l.owner = replica
    LOOP
        UPDATE weda_row r SET lane = one.new_lane, content = one.content WHERE r.sequence = one.sequence;
        UPDATE weda_lane l SET rows_in_lane = l.rows_in_lane - 1, bytes = l.bytes - one.size WHERE l.lane = one.lane;
        UPDATE weda_lane l SET rows_in_lane = l.rows_in_lane + 1, bytes = l.bytes + length(one.content)
        WHERE l.lane = one.new_lane;
    END LOOP;
    WITH removed AS (
        DELETE FROM weda_row r USING weda_lane l
        WHERE r.sequence = ANY (removed_sequences) AND l.lane = r.lane AND l.owner = replica
        RETURNING r.lane, length(r.content) AS size
    )
    UPDATE weda_lane l SET rows_in_lane = l.rows_in_lane - r.count, bytes = l.bytes - r.size
    FROM (
        SELECT removed.lane, count(*)::integer AS count, sum(removed.size) AS size FROM removed GROUP BY removed.lane
    ) r
    WHERE l.lane = r.lane;

    -- 5. Released lanes, unless rows have come into them.
    DELETE FROM weda_lane l WHERE l.lane = ANY (released_lanes) AND l.owner = replica AND l.rows_in_lane = 0;
    has_more := EXISTS (
        SELECT FROM weda_lane l WHERE l.lane = ANY (touched) AND l.owner = replica AND l.rows_in_lane > 0
    );

    -- 6. Results of the claims: the sequence, whether the replica owns the lane, and how many rows stand in it.
    SELECT
        coalesce(array_agg(v.sequence ORDER BY v.at), '{}'),
        coalesce(array_agg(v.is_owner ORDER BY v.at), '{}'),
        coalesce(array_agg(v.rows_in_lane ORDER BY v.at), '{}')
    INTO sequences, is_owner, rows_in_lane
    FROM (
        SELECT c.at, nextval('weda_sequence') AS sequence, l.owner = replica AS is_owner, l.rows_in_lane
        FROM unnest(claimed_lanes) WITH ORDINALITY AS c (lane, at) LEFT JOIN weda_lane l ON l.lane = c.lane
        ORDER BY c.at
    ) v;
END $$;
