SELECT
  processName,
  COUNT(*) AS ended,
  ROUND(PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY date_diff('second', startedAt, endedAt)) / 3600.0, 1) AS medianHours,
  ROUND(PERCENTILE_CONT(0.9) WITHIN GROUP (ORDER BY date_diff('second', startedAt, endedAt)) / 3600.0, 1) AS p90Hours,
  ROUND(MAX(date_diff('second', startedAt, endedAt)) / 3600.0, 1) AS longestHours
FROM lives
WHERE endedAt > (SELECT MAX(receivedAt) FROM events) - INTERVAL '7' DAY
GROUP BY processName
ORDER BY medianHours DESC, processName;
