WITH seen AS (
  SELECT
    source,
    fingerprint,
    COUNT(*) AS times,
    MAX(receivedAt) AS latest,
    MIN(receivedAt) AS earliest
  FROM events
  GROUP BY source, instanceId, fingerprint
)
SELECT
  source,
  SUM(times) AS records,
  SUM(times - 1) AS repeats,
  ROUND(100.0 * SUM(times - 1) / SUM(times), 2) AS percentRepeats,
  ROUND(MAX(date_diff('second', earliest, latest)) / 3600.0, 1) AS longestGapHours
FROM seen
GROUP BY source
ORDER BY source;
