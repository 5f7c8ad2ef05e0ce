-- How long each process takes: those that ended in the seven days before the newest message.
CREATE VIEW process_duration AS
SELECT
  processKey,
  MAX(processName) AS processName,
  COUNT(*) AS ended,
  ROUND(CAST(PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY seconds) / 3600 AS DECIMAL(18, 4)), 1) AS medianHours,
  ROUND(CAST(PERCENTILE_CONT(0.9) WITHIN GROUP (ORDER BY seconds) / 3600 AS DECIMAL(18, 4)), 1) AS p90Hours
FROM fct_instance
CROSS JOIN (SELECT MAX(receivedAt) AS newest FROM stg_event) AS clock
WHERE endedAt > newest - INTERVAL '7' DAY
GROUP BY processKey;
