-- An instance whose status says that it ended has an end.
SELECT source, instanceId, instanceStatusKey
FROM stg_event
WHERE msgType = 'Instance' AND instanceStatus IN (1, 2, 3, 4, 5) AND endTime IS NULL;
