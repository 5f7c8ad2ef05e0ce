-- The stream `flat` → Avro files, by Flink SQL: sql-client.sh -f flink.sql. It ends where the topic ends now. A job that
-- goes on has the runtime mode `streaming`, an interval of checkpoints, and no `scan.bounded.mode`. The columns come from
-- the schema (make generate).
SET 'execution.runtime-mode' = 'batch';
SET 'table.dml-sync' = 'true';

CREATE TABLE flat (
  instanceId STRING,
  msgType STRING,
  msgId STRING,
  `action` INT,
  actionName STRING,
  actionKey STRING,
  processName STRING,
  processKey STRING,
  flowTitle STRING,
  flowCode STRING,
  startTime TIMESTAMP(3),
  endTime TIMESTAMP(3),
  envType STRING,
  sourceType STRING,
  requestId STRING,
  approverIds ARRAY<STRING>,
  approverNames ARRAY<STRING>,
  starterIds ARRAY<STRING>,
  starterNames ARRAY<STRING>,
  instanceStatus INT,
  instanceStatusName STRING,
  instanceStatusKey STRING,
  taskStatus INT,
  taskStatusName STRING,
  elementId STRING,
  elementName STRING,
  elementType STRING,
  elementTypeName STRING,
  `comment` STRING,
  turnedToIds ARRAY<STRING>,
  turnedToNames ARRAY<STRING>,
  addedIds ARRAY<STRING>,
  addedNames ARRAY<STRING>,
  copiedToIds ARRAY<STRING>,
  copiedToNames ARRAY<STRING>,
  taskStartTime TIMESTAMP(3),
  taskEndTime TIMESTAMP(3),
  rollbackElementId STRING,
  rollbackElementName STRING,
  revokeElementId STRING,
  revokeElementName STRING,
  isCcTask BOOLEAN,
  notPersonIds ARRAY<STRING>,
  eventTime TIMESTAMP(3),
  `source` STRING,
  receivedAt TIMESTAMP(3),
  ingestId STRING,
  fingerprint STRING,
  extrasJson STRING,
  kafkaPartition INT METADATA FROM 'partition',
  kafkaOffset BIGINT METADATA FROM 'offset'
) WITH (
  'connector' = 'kafka',
  'topic' = 'weda.workflow.flat',
  'properties.bootstrap.servers' = 'localhost:9092',
  'scan.startup.mode' = 'earliest-offset',
  'scan.bounded.mode' = 'latest-offset',
  'value.format' = 'avro-confluent',
  'value.avro-confluent.url' = 'http://localhost:8081/apis/ccompat/v7'
);

CREATE TABLE workflow_events WITH (
  'connector' = 'filesystem',
  'path' = 'file:///lake/flink',
  'format' = 'avro',
  'avro.codec' = 'deflate'
) AS SELECT * FROM flat;
