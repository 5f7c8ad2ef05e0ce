WITH reports AS (
  SELECT
    loadedAt,
    date_trunc('hour', loadedAt) AS reportEnd,
    publishedThrough,
    kafka_partition,
    nextOffset
  FROM loads
  WHERE EXTRACT(HOUR FROM loadedAt) BETWEEN 5 AND 10
    AND CAST(loadedAt AS DATE) = (
      SELECT CAST(loadedAt AS DATE) FROM loads ORDER BY loadedAt - publishedThrough DESC, loadedAt LIMIT 1
    )
)
SELECT
  reportEnd + INTERVAL '8' HOUR AS hourUntil,
  COUNT(*) FILTER (WHERE kafka_offset < nextOffset) AS seenThen,
  COUNT(*) FILTER (WHERE kafka_offset >= nextOffset) AS cameLater,
  MAX(receivedAt) FILTER (WHERE kafka_offset < nextOffset) + INTERVAL '8' HOUR AS newestSeen,
  MIN(publishedThrough) + INTERVAL '8' HOUR AS publishedThrough,
  CASE WHEN MIN(publishedThrough) >= reportEnd + INTERVAL '1' MINUTE THEN 'yes' ELSE 'wait' END AS complete
FROM reports
JOIN events
  ON events.kafka_partition = reports.kafka_partition
  AND receivedAt >= reportEnd - INTERVAL '1' HOUR
  AND receivedAt < reportEnd
GROUP BY loadedAt, reportEnd
ORDER BY loadedAt;
