-- An instance is there once.
SELECT source, instanceId FROM fct_instance GROUP BY source, instanceId HAVING COUNT(*) > 1;
