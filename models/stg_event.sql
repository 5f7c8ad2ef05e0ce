-- Each message of production once, as it first came. What is left out is counted in left_out.
CREATE VIEW stg_event AS
SELECT
  source, instanceId, fingerprint, msgType, msgId, action, actionName, actionKey, processKey, processName, flowTitle,
  startTime, endTime, envType, instanceStatus, instanceStatusName, instanceStatusKey, elementId, elementName, comment,
  taskStartTime, taskEndTime, rollbackElementId, rollbackElementName, isCcTask, eventTime, receivedAt, ingestId
FROM (
  SELECT
    workflow_events.*,
    ROW_NUMBER() OVER (PARTITION BY source, instanceId, fingerprint ORDER BY receivedAt, ingestId) AS place
  FROM workflow_events
) AS numbered
WHERE place = 1 AND (envType IS NULL OR envType <> 'pre');
