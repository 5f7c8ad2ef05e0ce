-- A message is there once.
SELECT source, instanceId, fingerprint FROM stg_event GROUP BY source, instanceId, fingerprint HAVING COUNT(*) > 1;
