-- Which nodes send back, and to where.
CREATE VIEW send_back AS
SELECT
  processKey,
  MAX(processName) AS processName,
  elementId,
  MAX(elementName) AS elementName,
  rollbackElementId,
  MAX(rollbackElementName) AS rollbackElementName,
  COUNT(*) AS times,
  COUNT(DISTINCT instanceId) AS instances
FROM fct_task
WHERE actionKey = 'sent_back'
GROUP BY processKey, elementId, rollbackElementId;
