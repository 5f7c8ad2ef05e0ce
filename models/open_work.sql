-- What is open: one row an open instance and person that it waits for; without a person where the messages name nobody.
-- It waits for whom its newest 转办, 会签加签 or 待办 names, until as many have approved since, or somebody has ended it.
CREATE VIEW open_work AS
WITH openings AS (
  SELECT
    source, instanceId, fingerprint, action, elementId, elementName, taskStartTime,
    COALESCE(taskEndTime, taskStartTime) AS waitingSince,
    ROW_NUMBER() OVER (
      PARTITION BY source, instanceId
      ORDER BY
        CASE WHEN taskStartTime IS NULL THEN 1 ELSE 0 END, DATE_TRUNC('second', taskStartTime) DESC,
        CASE WHEN action = 0 THEN 1 ELSE 0 END, receivedAt DESC, ingestId DESC
    ) AS place
  FROM stg_event
  WHERE msgType = 'Task' AND action IN (0, 4, 7)
),
waiting AS (
  SELECT
    openings.source, openings.instanceId, elementId, elementName, waitingSince, personId, personName,
    COUNT(*) OVER (PARTITION BY openings.source, openings.instanceId) AS persons
  FROM openings
  INNER JOIN stg_person
    ON stg_person.source = openings.source
    AND stg_person.instanceId = openings.instanceId
    AND stg_person.fingerprint = openings.fingerprint
    AND personRole IN ('added', CASE WHEN action = 4 THEN 'turned_to' ELSE 'approver' END)
  WHERE openings.place = 1
),
done AS (
  SELECT
    acts.source,
    acts.instanceId,
    COUNT(*) FILTER (WHERE acts.action = 2) AS approved,
    COUNT(*) FILTER (WHERE acts.action <> 2) AS ended
  FROM openings
  INNER JOIN stg_event AS acts
    ON acts.source = openings.source
    AND acts.instanceId = openings.instanceId
    AND acts.elementId = openings.elementId
    AND acts.taskEndTime > openings.waitingSince
  WHERE openings.place = 1 AND acts.action IN (1, 2, 3, 5, 6, 8, 9, 13, 19, 20)
  GROUP BY acts.source, acts.instanceId
)
SELECT
  instances.source,
  instances.instanceId,
  processKey,
  processName,
  flowTitle,
  startedAt,
  elementId,
  elementName,
  waitingSince,
  personId,
  personName
FROM fct_instance AS instances
LEFT JOIN done ON done.source = instances.source AND done.instanceId = instances.instanceId
LEFT JOIN waiting
  ON waiting.source = instances.source
  AND waiting.instanceId = instances.instanceId
  AND COALESCE(ended, 0) = 0
  AND COALESCE(approved, 0) < persons
WHERE endedAt IS NULL;
