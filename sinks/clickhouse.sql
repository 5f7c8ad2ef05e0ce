-- The stream `flat` → a table of ClickHouse, or of chdb, which is ClickHouse in a Python process. A record that is read
-- again after a restart replaces itself: read with FINAL. The columns come from the schema (make generate).
CREATE DATABASE IF NOT EXISTS weda;

CREATE TABLE weda.flat_queue (
  instanceId String,
  msgType String,
  msgId Nullable(String),
  action Nullable(Int32),
  actionName Nullable(String),
  actionKey Nullable(String),
  processName Nullable(String),
  processKey Nullable(String),
  flowTitle Nullable(String),
  flowCode Nullable(String),
  startTime Nullable(DateTime64(3, 'UTC')),
  endTime Nullable(DateTime64(3, 'UTC')),
  envType Nullable(String),
  sourceType Nullable(String),
  requestId Nullable(String),
  approverIds Array(String),
  approverNames Array(String),
  starterIds Array(String),
  starterNames Array(String),
  instanceStatus Nullable(Int32),
  instanceStatusName Nullable(String),
  instanceStatusKey Nullable(String),
  taskStatus Nullable(Int32),
  taskStatusName Nullable(String),
  elementId Nullable(String),
  elementName Nullable(String),
  elementType Nullable(String),
  elementTypeName Nullable(String),
  comment Nullable(String),
  turnedToIds Array(String),
  turnedToNames Array(String),
  addedIds Array(String),
  addedNames Array(String),
  copiedToIds Array(String),
  copiedToNames Array(String),
  taskStartTime Nullable(DateTime64(3, 'UTC')),
  taskEndTime Nullable(DateTime64(3, 'UTC')),
  rollbackElementId Nullable(String),
  rollbackElementName Nullable(String),
  revokeElementId Nullable(String),
  revokeElementName Nullable(String),
  isCcTask Nullable(Bool),
  notPersonIds Array(String),
  eventTime Nullable(DateTime64(3, 'UTC')),
  source String,
  receivedAt DateTime64(3, 'UTC'),
  ingestId String,
  fingerprint String,
  extrasJson Nullable(String)
)
ENGINE = Kafka
SETTINGS
  kafka_broker_list = 'localhost:9092',
  kafka_topic_list = 'weda.workflow.flat',
  kafka_group_name = 'weda-clickhouse',
  kafka_format = 'AvroConfluent',
  format_avro_schema_registry_url = 'http://localhost:8081/apis/ccompat/v7';

CREATE TABLE weda.workflow_events
ENGINE = ReplacingMergeTree
ORDER BY (kafkaPartition, kafkaOffset)
EMPTY AS SELECT *, _partition AS kafkaPartition, _offset AS kafkaOffset
FROM weda.flat_queue;

CREATE MATERIALIZED VIEW weda.flat_into_workflow_events TO weda.workflow_events AS
SELECT *, _partition AS kafkaPartition, _offset AS kafkaOffset
FROM weda.flat_queue;
