WITH maps AS (
  SELECT fingerprint, action, m
  FROM clean
  CROSS JOIN UNNEST(approverMap) AS maps(m)
  WHERE msgType = 'Task'
    AND action IN (2, 3, 6)
),
pairs AS (
  SELECT fingerprint, action, m['userId'] AS userId, m['userName'] AS userName
  FROM maps
  WHERE m['userId'] IS NOT NULL
  UNION ALL
  SELECT fingerprint, action, entry.key, entry.value
  FROM maps
  CROSS JOIN UNNEST(map_entries(m)) AS entries(entry)
  WHERE m['userId'] IS NULL
),
approvers AS (
  SELECT *, COUNT(*) OVER (PARTITION BY fingerprint) AS together
  FROM pairs
  WHERE userId BETWEEN '1900000000' AND '1999999999'
)
SELECT
  userName,
  COUNT(*) FILTER (WHERE together = 1) AS decidedAlone,
  COUNT(*) FILTER (WHERE together = 1 AND action = 6) AS sentBack,
  COUNT(*) FILTER (WHERE together = 1 AND action = 3) AS rejected,
  COUNT(*) FILTER (WHERE together > 1) AS oneOfSeveral
FROM approvers
GROUP BY userId, userName
ORDER BY sentBack + rejected DESC, decidedAlone, userId
LIMIT 10;
