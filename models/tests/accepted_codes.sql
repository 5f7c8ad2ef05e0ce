-- A code and its key come together, and a key that is not listed holds the code.
SELECT DISTINCT action, actionKey, instanceStatus, instanceStatusKey
FROM stg_event
WHERE (action IS NULL) <> (actionKey IS NULL)
  OR (instanceStatus IS NULL) <> (instanceStatusKey IS NULL)
  OR (action NOT BETWEEN 0 AND 9 AND action <> 13 AND action NOT BETWEEN 15 AND 23
    AND actionKey <> 'action_' || CAST(action AS VARCHAR(20)))
  OR (instanceStatus NOT BETWEEN 0 AND 5
    AND instanceStatusKey <> 'instanceStatus_' || CAST(instanceStatus AS VARCHAR(20)));
