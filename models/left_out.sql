-- How many rows each model leaves out, and why.
CREATE VIEW left_out AS
SELECT 'stg_event' AS model, 'repeat of another record' AS reason, COALESCE(SUM(times - 1), 0) AS leftOut
FROM (SELECT COUNT(*) AS times FROM workflow_events GROUP BY source, instanceId, fingerprint) AS messages
UNION ALL
SELECT 'stg_event', 'preview environment', COUNT(*)
FROM (
  SELECT source, instanceId, fingerprint FROM workflow_events WHERE envType = 'pre'
  GROUP BY source, instanceId, fingerprint
) AS previews
UNION ALL
SELECT 'fct_instance', 'a draft, never started', COUNT(*)
FROM (
  SELECT source, instanceId FROM stg_event GROUP BY source, instanceId
  HAVING COUNT(*) = COUNT(*) FILTER (WHERE action IN (17, 18))
) AS drafts
UNION ALL
SELECT 'process_duration', 'no start', COUNT(*) FROM fct_instance WHERE startedAt IS NULL
UNION ALL
SELECT 'waiting_by_node', 'no start or no end', COUNT(*) FROM fct_task WHERE waitSeconds IS NULL
UNION ALL
SELECT 'waiting_by_person', 'several persons, or none', COUNT(*) FROM fct_task WHERE personId IS NULL;
