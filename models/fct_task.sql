-- One row a decision of people (approved, rejected, sent back, handled): how long it waited, and for whom.
-- Where a message names several persons, WeDa does not say who decided: personId is null and persons says how many.
CREATE VIEW fct_task AS
WITH approvers AS (
  SELECT
    source, instanceId, fingerprint, COUNT(*) AS persons,
    CASE WHEN COUNT(*) = 1 THEN MIN(personId) END AS personId,
    CASE WHEN COUNT(*) = 1 THEN MIN(personName) END AS personName
  FROM stg_person
  WHERE personRole = 'approver'
  GROUP BY source, instanceId, fingerprint
)
SELECT
  tasks.source,
  tasks.instanceId,
  tasks.fingerprint,
  processKey,
  processName,
  elementId,
  elementName,
  actionKey,
  taskStartTime AS openedAt,
  taskEndTime AS doneAt,
  EXTRACT(DAY FROM taskEndTime - taskStartTime) * 86400 + EXTRACT(HOUR FROM taskEndTime - taskStartTime) * 3600
    + EXTRACT(MINUTE FROM taskEndTime - taskStartTime) * 60
    + FLOOR(EXTRACT(SECOND FROM taskEndTime - taskStartTime)) AS waitSeconds,
  COALESCE(persons, 0) AS persons,
  personId,
  personName,
  rollbackElementId,
  rollbackElementName,
  comment
FROM stg_event AS tasks
LEFT JOIN approvers
  ON approvers.source = tasks.source
  AND approvers.instanceId = tasks.instanceId
  AND approvers.fingerprint = tasks.fingerprint
WHERE msgType = 'Task' AND action IN (2, 3, 6, 13);
