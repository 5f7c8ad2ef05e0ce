WITH decisions AS (
  SELECT
    processName,
    elementName,
    date_diff('second', taskStartTime, taskEndTime) / 3600.0 AS hours
  FROM clean
  WHERE msgType = 'Task'
    AND action IN (2, 3, 6)
)
SELECT
  processName,
  elementName,
  COUNT(*) AS decisions,
  ROUND(PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY hours), 1) AS medianHours,
  ROUND(PERCENTILE_CONT(0.9) WITHIN GROUP (ORDER BY hours), 1) AS p90Hours
FROM decisions
GROUP BY processName, elementName
ORDER BY p90Hours DESC, elementName;
