WITH latest AS (
  SELECT
    instanceId,
    instanceStatus,
    ROW_NUMBER() OVER (PARTITION BY instanceId ORDER BY endTime DESC NULLS LAST, kafka_offset DESC) AS place
  FROM clean
  WHERE msgType = 'Instance'
)
SELECT
  processName,
  COUNT(*) AS instances,
  COUNT(*) FILTER (WHERE instanceStatus = 3) AS approved,
  COUNT(*) FILTER (WHERE instanceStatus = 2) AS rejected,
  COUNT(*) FILTER (WHERE instanceStatus IN (1, 4, 5)) AS givenUp,
  COUNT(*) FILTER (WHERE instanceStatus IS NULL OR instanceStatus NOT IN (1, 2, 3, 4, 5)) AS stillOpen
FROM lives
LEFT JOIN latest ON latest.instanceId = lives.instanceId AND latest.place = 1
GROUP BY processName
ORDER BY instances DESC, processName;
