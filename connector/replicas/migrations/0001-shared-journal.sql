-- The journal that replicas share. Order, ownership and fencing: docs/adr/0036, 0037.

CREATE TABLE weda_replica (
    owner uuid PRIMARY KEY,
    since timestamptz NOT NULL DEFAULT clock_timestamp(),
    lease_until timestamptz NOT NULL,
    turn bigint NOT NULL DEFAULT 0
)
WITH (fillfactor = 50);

COMMENT ON TABLE weda_replica IS 'Replicas that are alive. Who is not in here is dead for good; its rows are orphans.';

CREATE TABLE weda_lane (
    lane bytea PRIMARY KEY,
    owner uuid NOT NULL,
    backlog integer NOT NULL DEFAULT 0,
    bytes bigint NOT NULL DEFAULT 0
)
WITH (
    fillfactor = 60,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 2000,
    autovacuum_vacuum_insert_threshold = -1,
    autovacuum_vacuum_cost_delay = 0
);

COMMENT ON TABLE weda_lane IS 'Instances of which something is on its way to Kafka; only the owner publishes it.';

CREATE INDEX weda_lane_by_owner ON weda_lane (owner, lane);

CREATE SEQUENCE weda_sequence AS bigint;

CREATE TABLE weda_row (
    sequence bigint PRIMARY KEY,
    lane bytea NOT NULL,
    source text NOT NULL,
    received_at bigint NOT NULL,
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

CREATE INDEX weda_row_by_lane ON weda_row (lane, sequence);

CREATE TABLE weda_mark (
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

COMMENT ON TABLE weda_mark IS 'What was seen within the window; with an owner it is on its way, without one it is safe.';

CREATE INDEX weda_mark_by_age ON weda_mark (seen_at);

CREATE TABLE weda_number (
    name text PRIMARY KEY,
    value bigint NOT NULL
);

COMMENT ON TABLE weda_number IS 'Numbers that outlive replicas, such as the latest time that ids may have used.';

CREATE FUNCTION weda_renew(me uuid, lease interval, adopts integer)
RETURNS TABLE (backlog bigint, bytes bigint, adopted integer)
LANGUAGE plpgsql AS $$
-- Renew the lease of a replica, bury those whose lease has run out, and adopt some of the lanes that nobody owns.
DECLARE
    candidates bytea[];
    taken integer;
BEGIN
    UPDATE weda_replica r SET lease_until = clock_timestamp() + lease WHERE r.owner = me;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the lease of % has run out', me USING ERRCODE = 'WL001';
    END IF;
    DELETE FROM weda_replica r WHERE r.lease_until <= clock_timestamp() AND r.owner IN (
        SELECT d.owner FROM weda_replica d WHERE d.lease_until <= clock_timestamp() FOR UPDATE SKIP LOCKED
    );
    -- Two statements: whether an owner lives is looked up under a snapshot that is younger than the lock on its lane.
    candidates := ARRAY(
        SELECT l.lane FROM weda_lane l WHERE l.owner IN (SELECT weda_orphans())
        LIMIT adopts FOR UPDATE SKIP LOCKED
    );
    DELETE FROM weda_lane l WHERE l.lane = ANY (candidates) AND l.backlog = 0 AND l.owner <> me
    AND NOT EXISTS (SELECT FROM weda_replica r WHERE r.owner = l.owner);
    UPDATE weda_lane l SET owner = me WHERE l.lane = ANY (candidates) AND l.owner <> me
    AND NOT EXISTS (SELECT FROM weda_replica r WHERE r.owner = l.owner);
    GET DIAGNOSTICS taken = ROW_COUNT;
    RETURN QUERY SELECT
        (SELECT coalesce(sum(l.backlog), 0)::bigint FROM weda_lane l WHERE l.owner = me),
        (SELECT coalesce(sum(l.bytes), 0)::bigint FROM weda_lane l),
        taken;
END $$;

CREATE FUNCTION weda_orphans() RETURNS SETOF uuid
LANGUAGE sql STABLE AS $$
-- Owners of lanes that are not alive: a walk from one owner to the next along the index, however many lanes they have.
WITH RECURSIVE owners(owner) AS (
    (SELECT l.owner FROM weda_lane l ORDER BY l.owner LIMIT 1)
    UNION ALL
    SELECT (SELECT l.owner FROM weda_lane l WHERE l.owner > o.owner ORDER BY l.owner LIMIT 1)
    FROM owners o WHERE o.owner IS NOT NULL
)
SELECT o.owner FROM owners o
WHERE o.owner IS NOT NULL AND NOT EXISTS (SELECT FROM weda_replica r WHERE r.owner = o.owner)
$$;

CREATE FUNCTION weda_see(me uuid, repeats_within interval, first bytea, second bytea, seen bytea) RETURNS text
LANGUAGE plpgsql AS $$
-- Claim a mark: 'new', 'conflict' (its id came before with other content), 'pending' (on its way elsewhere) or 'safe'.
-- An id's first content stands under the key of the id, every other one under a key of its own: so the ids alone
-- decide, by a unique key, who comes first.
DECLARE
    place bytea := first;
    standing text := 'new';
    found_mark weda_mark;
    is_over boolean;
BEGIN
    -- It may outlive the content that came before it.
    IF EXISTS (SELECT FROM weda_mark m WHERE m.key = second) THEN
        place := second;
        standing := 'conflict';
    END IF;
    LOOP
        INSERT INTO weda_mark (key, fingerprint, owner, seen_at) VALUES (place, seen, me, clock_timestamp())
        ON CONFLICT DO NOTHING;
        IF FOUND THEN
            RETURN standing;
        END IF;
        SELECT * INTO found_mark FROM weda_mark m WHERE m.key = place;
        CONTINUE WHEN NOT FOUND;
        is_over := found_mark.owner IS NULL AND found_mark.seen_at <= clock_timestamp() - repeats_within;
        IF found_mark.fingerprint <> seen AND NOT is_over THEN
            place := second;
            standing := 'conflict';
            CONTINUE;
        END IF;
        IF found_mark.owner IS NULL AND NOT is_over THEN
            RETURN 'safe';
        END IF;
        IF found_mark.owner <> me AND EXISTS (SELECT FROM weda_replica r WHERE r.owner = found_mark.owner) THEN
            RETURN 'pending';
        END IF;
        UPDATE weda_mark m SET owner = me, fingerprint = seen, seen_at = clock_timestamp()
        WHERE m.key = place AND m.fingerprint = found_mark.fingerprint AND m.owner IS NOT DISTINCT FROM found_mark.owner;
        IF FOUND THEN
            RETURN standing;
        END IF;
    END LOOP;
END $$;

CREATE FUNCTION weda_forget(repeats_within interval, most bigint, batch integer) RETURNS bigint
LANGUAGE plpgsql AS $$
-- Remove marks that are older than the window, and the oldest of those that are too many; one replica at a time.
DECLARE
    horizon timestamptz := clock_timestamp() - repeats_within;
    excess bigint;
    old bigint;
    early bigint;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('weda_forget')) THEN
        RETURN 0;
    END IF;
    DELETE FROM weda_mark m WHERE m.key IN (
        SELECT o.key FROM weda_mark o
        WHERE o.seen_at <= horizon
        AND (o.owner IS NULL OR NOT EXISTS (SELECT FROM weda_replica r WHERE r.owner = o.owner))
        ORDER BY o.seen_at LIMIT batch FOR UPDATE SKIP LOCKED
    );
    GET DIAGNOSTICS old = ROW_COUNT;
    SELECT greatest(count(*) - most, 0) INTO excess FROM weda_mark;
    DELETE FROM weda_mark m WHERE m.key IN (
        SELECT o.key FROM weda_mark o WHERE o.owner IS NULL
        ORDER BY o.seen_at LIMIT least(excess, batch) FOR UPDATE SKIP LOCKED
    );
    GET DIAGNOSTICS early = ROW_COUNT;
    RETURN greatest(old, early);
END $$;

CREATE FUNCTION weda_turn(
    me uuid,
    number bigint,
    repeats_within interval,
    safe_keys bytea[], safe_prints bytea[],
    void_keys bytea[], void_prints bytea[],
    released bytea[],
    struck bigint[],
    amended bigint[], amended_lanes bytea[], amended_contents bytea[],
    stored bigint[], stored_lanes bytea[], stored_firsts bytea[], stored_seconds bytea[], stored_prints bytea[],
    stored_sources text[], stored_times bigint[], stored_contents bytea[],
    claimed bytea[], claimed_firsts bytea[], claimed_seconds bytea[], claimed_prints bytea[],
    OUT refused bigint[], OUT idle bytea[], OUT has_more boolean,
    OUT standings text[], OUT sequences bigint[], OUT are_mine boolean[], OUT backlogs integer[]
)
LANGUAGE plpgsql AS $$
-- Everything that one replica has gathered since its last turn, in one statement, and so in one transaction that never
-- waits for a network. Locks are taken in one order: marks by key, then lanes by name.
DECLARE
    one record;
    needed bytea[];
    touched bytea[];
BEGIN
    -- 0. A turn whose answer was not waited for may still arrive, but not behind the one that came after it.
    UPDATE weda_replica r SET turn = number WHERE r.owner = me AND r.turn < number;
    IF NOT FOUND AND EXISTS (SELECT FROM weda_replica r WHERE r.owner = me) THEN
        RAISE EXCEPTION 'turn % of % was overtaken', number, me USING ERRCODE = 'WL002';
    ELSIF NOT FOUND THEN
        RAISE EXCEPTION 'the lease of % has run out', me USING ERRCODE = 'WL001';
    END IF;

    -- 1. Marks of messages that are safe, or known not to be; then those of new ones.
    UPDATE weda_mark m SET owner = NULL FROM unnest(safe_keys, safe_prints) AS s (key, print)
    WHERE m.key = s.key AND m.fingerprint = s.print AND m.owner = me;
    DELETE FROM weda_mark m USING unnest(void_keys, void_prints) AS v (key, print)
    WHERE m.key = v.key AND m.fingerprint = v.print AND m.owner = me;
    standings := array_fill('new'::text, ARRAY[cardinality(claimed)]);
    FOR one IN
        SELECT c.first, c.second, c.print, c.at
        FROM unnest(claimed_firsts, claimed_seconds, claimed_prints) WITH ORDINALITY AS c (first, second, print, at)
        WHERE c.first IS NOT NULL ORDER BY c.first, c.second
    LOOP
        standings[one.at] := weda_see(me, repeats_within, one.first, one.second, one.print);
    END LOOP;

    -- 2. Lanes: those that are needed exist, all that are touched are locked, orphans among the needed are ours.
    needed := amended_lanes || ARRAY(
        SELECT s.lane FROM unnest(stored, stored_lanes) AS s (sequence, lane) WHERE s.sequence IS NULL
        UNION SELECT c.lane FROM unnest(claimed, standings) AS c (lane, standing)
        WHERE c.standing IN ('new', 'conflict')
    );
    touched := needed || stored_lanes || released || ARRAY(
        SELECT DISTINCT r.lane FROM weda_row r WHERE r.sequence = ANY (struck || amended)
    );
    LOOP
        INSERT INTO weda_lane (lane, owner) SELECT DISTINCT n.lane, me FROM unnest(needed) AS n (lane) ORDER BY n.lane
        ON CONFLICT DO NOTHING;
        PERFORM FROM weda_lane l WHERE l.lane = ANY (touched) ORDER BY l.lane FOR UPDATE;
        EXIT WHEN NOT EXISTS (
            SELECT FROM unnest(needed) AS n (lane) WHERE NOT EXISTS (SELECT FROM weda_lane l WHERE l.lane = n.lane)
        );
    END LOOP;
    UPDATE weda_lane l SET owner = me WHERE l.lane = ANY (needed) AND l.owner <> me
    AND NOT EXISTS (SELECT FROM weda_replica r WHERE r.owner = l.owner);

    -- 3. Rows: into lanes of ours under the sequence that was claimed, into lanes of others behind all that is there.
    refused := ARRAY(
        SELECT s.at FROM unnest(stored, stored_lanes) WITH ORDINALITY AS s (sequence, lane, at)
        WHERE s.sequence IS NOT NULL AND NOT EXISTS (
            SELECT FROM weda_lane l WHERE l.lane = s.lane AND l.owner = me
        )
    );
    WITH kept AS (
        INSERT INTO weda_row (sequence, lane, source, received_at, content)
        SELECT coalesce(s.sequence, nextval('weda_sequence')), s.lane, s.source, s.received_at, s.content
        FROM unnest(stored, stored_lanes, stored_sources, stored_times, stored_contents) WITH ORDINALITY
        AS s (sequence, lane, source, received_at, content, at)
        WHERE s.at <> ALL (refused) ORDER BY s.at
        ON CONFLICT (sequence) DO NOTHING
        RETURNING weda_row.lane, length(weda_row.content) AS size
    )
    UPDATE weda_lane l SET backlog = l.backlog + k.count, bytes = l.bytes + k.size
    FROM (SELECT kept.lane, count(*)::integer AS count, sum(kept.size) AS size FROM kept GROUP BY kept.lane) k
    WHERE l.lane = k.lane;
    UPDATE weda_mark m SET owner = NULL
    FROM unnest(stored_firsts, stored_seconds, stored_prints) WITH ORDINALITY AS s (first, second, print, at)
    WHERE s.first IS NOT NULL AND s.at <> ALL (refused)
    AND m.key IN (s.first, s.second) AND m.fingerprint = s.print AND m.owner = me;

    -- 4. Rows that are replaced, perhaps in another lane, and rows that are published.
    FOR one IN
        SELECT r.sequence, r.lane, length(r.content) AS size, a.lane AS new_lane, a.content
        FROM unnest(amended, amended_lanes, amended_contents) AS a (sequence, lane, content)
        JOIN weda_row r ON r.sequence = a.sequence JOIN weda_lane l ON l.lane = r.lane AND l.owner = me
    LOOP
        UPDATE weda_row r SET lane = one.new_lane, content = one.content WHERE r.sequence = one.sequence;
        UPDATE weda_lane l SET backlog = l.backlog - 1, bytes = l.bytes - one.size WHERE l.lane = one.lane;
        UPDATE weda_lane l SET backlog = l.backlog + 1, bytes = l.bytes + length(one.content)
        WHERE l.lane = one.new_lane;
    END LOOP;
    WITH gone AS (
        DELETE FROM weda_row r USING weda_lane l
        WHERE r.sequence = ANY (struck) AND l.lane = r.lane AND l.owner = me
        RETURNING r.lane, length(r.content) AS size
    ), left_over AS (
        UPDATE weda_lane l SET backlog = l.backlog - g.count, bytes = l.bytes - g.size
        FROM (SELECT gone.lane, count(*)::integer AS count, sum(gone.size) AS size FROM gone GROUP BY gone.lane) g
        WHERE l.lane = g.lane
        RETURNING l.lane, l.backlog
    )
    SELECT coalesce(array_agg(o.lane), '{}') INTO idle FROM left_over o WHERE o.backlog = 0;

    -- 5. Lanes in which nothing of ours is left.
    DELETE FROM weda_lane l WHERE l.lane = ANY (released) AND l.owner = me AND l.backlog = 0;
    has_more := EXISTS (SELECT FROM weda_lane l WHERE l.lane = ANY (touched) AND l.owner = me AND l.backlog > 0);

    -- 6. What is claimed: its place in the order, whose the lane is, and whether rows stand before it.
    SELECT
        coalesce(array_agg(v.sequence ORDER BY v.at), '{}'),
        coalesce(array_agg(v.is_mine ORDER BY v.at), '{}'),
        coalesce(array_agg(v.backlog ORDER BY v.at), '{}')
    INTO sequences, are_mine, backlogs
    FROM (
        SELECT c.at, nextval('weda_sequence') AS sequence, l.owner = me AS is_mine, l.backlog
        FROM unnest(claimed) WITH ORDINALITY AS c (lane, at) LEFT JOIN weda_lane l ON l.lane = c.lane
        ORDER BY c.at
    ) v;
END $$;
