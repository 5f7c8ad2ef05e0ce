CREATE VIEW lives AS
SELECT
  instanceId,
  MAX(processName) AS processName,
  MIN(startTime) AS startedAt,
  MIN(endTime) AS endedAt
FROM clean
GROUP BY instanceId
HAVING COUNT(*) > COUNT(*) FILTER (WHERE action IN (17, 18));
