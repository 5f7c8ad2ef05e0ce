-- A decision is there once.
SELECT source, instanceId, fingerprint FROM fct_task GROUP BY source, instanceId, fingerprint HAVING COUNT(*) > 1;
