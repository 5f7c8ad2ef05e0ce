-- The Parquet files of parquet.py, or of any other sink, as the table that the models read.
CREATE VIEW workflow_events AS
SELECT * FROM read_parquet('/lake/parquet/*.parquet', union_by_name = true);
