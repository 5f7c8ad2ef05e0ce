WITH minutes AS (
  SELECT date_trunc('minute', receivedAt + INTERVAL '8' HOUR) AS localMinute, COUNT(*) AS records
  FROM events
  GROUP BY date_trunc('minute', receivedAt + INTERVAL '8' HOUR)
)
SELECT
  EXTRACT(HOUR FROM localMinute) AS hourOfDay,
  SUM(records) AS records,
  MAX(records) AS busiestMinute
FROM minutes
WHERE EXTRACT(HOUR FROM localMinute) BETWEEN 6 AND 19
GROUP BY EXTRACT(HOUR FROM localMinute)
ORDER BY hourOfDay;
