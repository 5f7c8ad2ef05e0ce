"""The operations listener: metrics, probes, and the API and pages for those who run the connector.

- `connector.operations.listener`: the application; `connector.operations.context`: what its parts share.
- `connector.operations.guard`: admits or rejects requests; `connector.operations.sessions`: browser sessions;
  `connector.operations.token_throttle`: slows down guessing.
- `connector.operations.api`: the API; `connector.operations.api_docs`: its documentation page.
- `connector.operations.console`: the pages; `connector.operations.translations`: their texts in Chinese. Their contents
  come from `connector.operations.status`, `connector.operations.cards`, `connector.operations.charts`,
  `connector.operations.pictures`, `connector.operations.formats` and `connector.operations.diagnosis`.
- `connector.operations.kafka_reader`: what the API and the console read from Kafka.
- `connector.operations.catalog`: the index of instances; `connector.operations.search`: one search over everything.
- `connector.operations.history`: rates and latencies over time.
"""
