-- One row an instance that was started: when it started and ended, how, and what happened on its way.
CREATE VIEW fct_instance AS
WITH latest AS (
  SELECT
    source, instanceId, instanceStatus, instanceStatusKey,
    ROW_NUMBER() OVER (
      PARTITION BY source, instanceId
      ORDER BY CASE WHEN endTime IS NULL THEN 1 ELSE 0 END, endTime DESC, receivedAt DESC, ingestId DESC
    ) AS place
  FROM stg_event
  WHERE msgType = 'Instance'
),
starters AS (
  SELECT source, instanceId, MIN(personId) AS starterId, MIN(personName) AS starterName
  FROM stg_person
  WHERE personRole = 'starter'
  GROUP BY source, instanceId
),
lives AS (
  SELECT
    source,
    instanceId,
    MAX(processKey) AS processKey,
    MAX(processName) AS processName,
    MAX(flowTitle) AS flowTitle,
    MIN(startTime) AS startedAt,
    MIN(endTime) AS endedAt,
    COUNT(*) AS messages,
    COUNT(*) FILTER (WHERE msgType = 'Task' AND action = 6) AS sentBack,
    COUNT(*) FILTER (WHERE msgType = 'Task' AND action IN (2, 3, 6, 13)) AS decisions,
    MAX(receivedAt) AS lastReceivedAt
  FROM stg_event
  GROUP BY source, instanceId
  HAVING COUNT(*) > COUNT(*) FILTER (WHERE action IN (17, 18))
)
SELECT
  lives.source,
  lives.instanceId,
  processKey,
  processName,
  flowTitle,
  starterId,
  starterName,
  startedAt,
  endedAt,
  EXTRACT(DAY FROM endedAt - startedAt) * 86400 + EXTRACT(HOUR FROM endedAt - startedAt) * 3600
    + EXTRACT(MINUTE FROM endedAt - startedAt) * 60 + FLOOR(EXTRACT(SECOND FROM endedAt - startedAt)) AS seconds,
  CASE WHEN endedAt IS NULL THEN 'in_approval' ELSE instanceStatusKey END AS statusKey,
  messages,
  decisions,
  sentBack,
  lastReceivedAt
FROM lives
LEFT JOIN latest ON latest.source = lives.source AND latest.instanceId = lives.instanceId AND latest.place = 1
LEFT JOIN starters ON starters.source = lives.source AND starters.instanceId = lives.instanceId;
