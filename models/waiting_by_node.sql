-- How long work waits at each node until a person decides. Decisions without both times are counted in left_out.
CREATE VIEW waiting_by_node AS
SELECT
  processKey,
  elementId,
  MAX(processName) AS processName,
  MAX(elementName) AS elementName,
  COUNT(*) AS decisions,
  ROUND(CAST(PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY waitSeconds) / 3600 AS DECIMAL(18, 4)), 1) AS medianHours,
  ROUND(CAST(PERCENTILE_CONT(0.9) WITHIN GROUP (ORDER BY waitSeconds) / 3600 AS DECIMAL(18, 4)), 1) AS p90Hours
FROM fct_task
WHERE waitSeconds IS NOT NULL
GROUP BY processKey, elementId;
