-- A note that a dead letter was replayed stands with the row of its message: in one transaction, or neither.

CREATE FUNCTION weda_noting_turn(
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
    note_names text[], note_values bigint[],
    OUT refused bigint[], OUT idle bytea[], OUT has_more boolean,
    OUT standings text[], OUT sequences bigint[], OUT are_mine boolean[], OUT backlogs integer[]
)
LANGUAGE plpgsql AS $$
-- A turn, and the notes of its rows: a name and a number for each row that is stored, or null.
BEGIN
    SELECT t.* INTO refused, idle, has_more, standings, sequences, are_mine, backlogs
    FROM weda_turn(
        me, number, repeats_within, safe_keys, safe_prints, void_keys, void_prints, released, struck, amended,
        amended_lanes, amended_contents, stored, stored_lanes, stored_firsts, stored_seconds, stored_prints,
        stored_sources, stored_times, stored_contents, claimed, claimed_firsts, claimed_seconds, claimed_prints
    ) t;
    INSERT INTO weda_number AS n (name, value)
    SELECT x.name, x.value FROM unnest(note_names, note_values) WITH ORDINALITY AS x (name, value, at)
    WHERE x.name IS NOT NULL AND x.at <> ALL (refused)
    ON CONFLICT (name) DO UPDATE SET value = greatest(n.value, excluded.value);
END $$;
