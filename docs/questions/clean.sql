CREATE VIEW clean AS
SELECT *
FROM (
  SELECT
    *,
    ROW_NUMBER() OVER (PARTITION BY source, instanceId, fingerprint ORDER BY kafka_offset) AS telling
  FROM events
) AS numbered
WHERE telling = 1
  AND envType = 'prod';
