WITH evenings AS (
  SELECT UNNEST(generate_series(
    date_trunc('day', MIN(receivedAt)) + INTERVAL '10' HOUR,
    date_trunc('day', MAX(receivedAt)) + INTERVAL '10' HOUR,
    INTERVAL '1' DAY
  )) AS moment
  FROM events
),
ages AS (
  SELECT moment, date_diff('second', startedAt, moment) / 3600.0 AS hours
  FROM evenings
  JOIN lives ON startedAt <= moment AND (endedAt IS NULL OR endedAt > moment)
)
SELECT
  CAST(moment + INTERVAL '8' HOUR AS DATE) AS evening,
  COUNT(*) AS openInstances,
  COUNT(*) FILTER (WHERE hours < 24) AS underOneDay,
  COUNT(*) FILTER (WHERE hours >= 24 AND hours < 72) AS oneToThreeDays,
  COUNT(*) FILTER (WHERE hours >= 72) AS older,
  ROUND(MAX(hours) / 24, 1) AS oldestDays
FROM ages
GROUP BY moment
ORDER BY moment;
