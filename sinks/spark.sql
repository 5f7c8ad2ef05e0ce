-- The Parquet files of spark.py as the table that the models read.
CREATE TABLE workflow_events USING parquet LOCATION '/lake/spark';
