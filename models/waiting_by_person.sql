-- How long work waits for each person, over the decisions that name that person alone. The others are in left_out.
CREATE VIEW waiting_by_person AS
SELECT
  personId,
  MAX(personName) AS personName,
  COUNT(*) AS decisions,
  COUNT(*) FILTER (WHERE actionKey = 'sent_back') AS sentBack,
  COUNT(*) FILTER (WHERE actionKey = 'rejected') AS rejected,
  ROUND(CAST(PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY waitSeconds) / 3600 AS DECIMAL(18, 4)), 1) AS medianHours,
  ROUND(CAST(PERCENTILE_CONT(0.9) WITHIN GROUP (ORDER BY waitSeconds) / 3600 AS DECIMAL(18, 4)), 1) AS p90Hours
FROM fct_task
WHERE personId IS NOT NULL AND waitSeconds IS NOT NULL
GROUP BY personId;
