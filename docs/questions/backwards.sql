WITH moments AS (
  SELECT
    instanceId,
    msgType,
    kafka_offset,
    CASE
      WHEN msgType = 'Task' THEN COALESCE(taskEndTime, taskStartTime)
      WHEN endTime IS NOT NULL THEN endTime
      WHEN action = 22 THEN startTime
    END AS moment
  FROM clean
),
compared AS (
  SELECT
    *,
    MAX(moment) OVER (
      PARTITION BY instanceId ORDER BY kafka_offset ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    ) AS newestBefore
  FROM moments
)
SELECT
  msgType,
  COUNT(*) AS messages,
  COUNT(*) FILTER (WHERE moment < newestBefore - INTERVAL '1' SECOND) AS wentBack,
  COUNT(DISTINCT instanceId) FILTER (WHERE moment < newestBefore - INTERVAL '1' SECOND) AS instances,
  ROUND(MAX(date_diff('second', moment, newestBefore)) / 3600.0, 1) AS furthestHours
FROM compared
GROUP BY msgType
ORDER BY msgType;
