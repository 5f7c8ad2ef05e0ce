WITH delays AS (
  SELECT
    source,
    date_diff('second', CASE WHEN msgType = 'Task' THEN taskEndTime ELSE endTime END, receivedAt) AS seconds
  FROM clean
)
SELECT
  source,
  COUNT(seconds) AS messages,
  COUNT(*) FILTER (WHERE seconds <= 2) AS withinTwoSeconds,
  COUNT(*) FILTER (WHERE seconds > 60) AS overAMinute,
  COUNT(*) FILTER (WHERE seconds > 3600) AS overAnHour,
  COUNT(*) FILTER (WHERE seconds > 86400) AS overADay,
  ROUND(MAX(seconds) / 3600.0, 1) AS longestHours
FROM delays
GROUP BY source
ORDER BY source;
