-- When the brokers last answered a replica: another one stands aside only for an answer after its own stopped. docs/adr/0046.

ALTER TABLE weda_replica ADD COLUMN reached_kafka_at timestamptz;

COMMENT ON COLUMN weda_replica.reached_kafka_at IS 'When the brokers last answered it, by this database''s clock; of a version that does not say so, null.';
