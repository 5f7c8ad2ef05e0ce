-- Which replicas reach Kafka: one that does not lets nothing in while another does. docs/adr/0041.

ALTER TABLE weda_replica ADD COLUMN reaches_kafka boolean NOT NULL DEFAULT false;

COMMENT ON COLUMN weda_replica.reaches_kafka IS 'Whether the brokers answer it; a version that does not say so never does.';
