-- Who is named in each message: one row a person and role, whichever shape WeDa's map had. Spark has its own file.
CREATE VIEW stg_person AS
SELECT DISTINCT source, instanceId, fingerprint, personRole, personId, names[place] AS personName, place
FROM workflow_events
CROSS JOIN LATERAL (
  VALUES
    ('approver', approverIds, approverNames),
    ('starter', starterIds, starterNames),
    ('turned_to', turnedToIds, turnedToNames),
    ('added', addedIds, addedNames),
    ('copied_to', copiedToIds, copiedToNames)
) AS roles(personRole, ids, names)
CROSS JOIN LATERAL UNNEST(ids) WITH ORDINALITY AS named(personId, place);
