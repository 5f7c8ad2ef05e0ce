-- The same as models/stg_person.sql, in Spark's words.
CREATE VIEW stg_person AS
SELECT DISTINCT source, instanceId, fingerprint, personRole, personId, names[place - 1] AS personName, place
FROM (
  SELECT source, instanceId, fingerprint, personRole, names, position + 1 AS place, personId
  FROM workflow_events
  LATERAL VIEW STACK(
    5,
    'approver', approverIds, approverNames,
    'starter', starterIds, starterNames,
    'turned_to', turnedToIds, turnedToNames,
    'added', addedIds, addedNames,
    'copied_to', copiedToIds, copiedToNames
  ) roles AS personRole, ids, names
  LATERAL VIEW POSEXPLODE(ids) named AS position, personId
) AS named;
