WITH places AS (
  SELECT
    instanceId,
    actionName,
    endTime,
    MAX(endTime) OVER (PARTITION BY instanceId) AS endedAt,
    ROW_NUMBER() OVER (PARTITION BY instanceId ORDER BY kafka_offset DESC) AS fromTheEnd
  FROM clean
)
SELECT
  actionName AS lastRecordSays,
  COUNT(*) AS instances,
  COUNT(endedAt) AS haveEnded
FROM places
WHERE fromTheEnd = 1
  AND endTime IS NULL
GROUP BY actionName
HAVING COUNT(endedAt) > 0
ORDER BY haveEnded DESC, lastRecordSays;
