CREATE TABLE events AS
SELECT
  value.instanceId, value.msgType, value.msgId, value.action, value.actionName, value.processName,
  value.processKey, value.flowTitle, value.flowCode, epoch_ms(value.startTime) AS startTime,
  epoch_ms(value.endTime) AS endTime, value.envType, value.sourceType, value.requestId, value.approverMap,
  value.startUserMap, value.elementMap, value.instanceStatus, value.instanceStatusName, value.taskStatus,
  value.taskStatusName, value.elementId, value.elementName, value.elementType, value.elementTypeName,
  value.comment, value.turnToUserMap, value.addAssigneeMap, value.ccUserMap, value.taskMap, value.pageUrlMap,
  epoch_ms(value.taskStartTime) AS taskStartTime, epoch_ms(value.taskEndTime) AS taskEndTime,
  value.rollbackElementId, value.rollbackElementName, value.revokeElementId, value.revokeElementName,
  value.isCcTask, value.source, epoch_ms(value.receivedAt) AS receivedAt, value.ingestId, value.extras,
  partition AS kafka_partition, "offset" AS kafka_offset, headers['weda.fingerprint'] AS fingerprint
FROM read_json('events.jsonl', format = 'newline_delimited', columns = {
  partition: 'INTEGER', 'offset': 'BIGINT', headers: 'MAP(VARCHAR, VARCHAR)', value: 'STRUCT(
  instanceId VARCHAR, msgType VARCHAR, msgId VARCHAR, action INTEGER, actionName VARCHAR, processName VARCHAR,
  processKey VARCHAR, flowTitle VARCHAR, flowCode VARCHAR, startTime BIGINT, endTime BIGINT, envType VARCHAR,
  sourceType VARCHAR, requestId VARCHAR, approverMap MAP(VARCHAR, VARCHAR)[],
  startUserMap MAP(VARCHAR, VARCHAR)[], elementMap MAP(VARCHAR, VARCHAR)[], instanceStatus INTEGER,
  instanceStatusName VARCHAR, taskStatus INTEGER, taskStatusName VARCHAR, elementId VARCHAR,
  elementName VARCHAR, elementType VARCHAR, elementTypeName VARCHAR, comment VARCHAR,
  turnToUserMap MAP(VARCHAR, VARCHAR)[], addAssigneeMap MAP(VARCHAR, VARCHAR)[],
  ccUserMap MAP(VARCHAR, VARCHAR)[], taskMap MAP(VARCHAR, VARCHAR)[], pageUrlMap MAP(VARCHAR, VARCHAR)[],
  taskStartTime BIGINT, taskEndTime BIGINT, rollbackElementId VARCHAR, rollbackElementName VARCHAR,
  revokeElementId VARCHAR, revokeElementName VARCHAR, isCcTask BOOLEAN, source VARCHAR, receivedAt BIGINT,
  ingestId VARCHAR, extras MAP(VARCHAR, VARCHAR))'
});
