WITH changes AS (
  SELECT startedAt AS moment, 1 AS started, 0 AS ended FROM lives
  UNION ALL
  SELECT endedAt, 0, 1 FROM lives WHERE endedAt IS NOT NULL
)
SELECT
  CAST(moment + INTERVAL '8' HOUR AS DATE) AS workday,
  SUM(started) AS started,
  SUM(ended) AS ended,
  SUM(SUM(started - ended)) OVER (ORDER BY CAST(moment + INTERVAL '8' HOUR AS DATE)) AS openAtMidnight
FROM changes
GROUP BY CAST(moment + INTERVAL '8' HOUR AS DATE)
ORDER BY workday;
