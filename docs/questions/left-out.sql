SELECT 'clean' AS view, 'messages of previews' AS leavesOut, COUNT(DISTINCT (source, instanceId, fingerprint)) AS rows
FROM events
WHERE envType IS DISTINCT FROM 'prod'
UNION ALL
SELECT 'clean', 'duplicates', COUNT(*) - COUNT(DISTINCT (source, instanceId, fingerprint))
FROM events
WHERE envType = 'prod'
UNION ALL
SELECT 'lives', 'drafts that were never started', COUNT(DISTINCT instanceId) - (SELECT COUNT(*) FROM lives)
FROM clean
ORDER BY view, leavesOut;
