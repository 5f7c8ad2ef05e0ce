CREATE TABLE loads AS
SELECT *
FROM read_csv('loads.csv', header = true, columns = {
  'loadedAt': 'TIMESTAMP', 'publishedThrough': 'TIMESTAMP', 'kafka_partition': 'INTEGER', 'nextOffset': 'BIGINT'
});
