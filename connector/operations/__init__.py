"""The operations listener: metrics, probes, and the API and pages for those who run the connector.

- `connector.operations.listener`: its application; `connector.operations.context`: what its parts share.
- `connector.operations.guard`: who is let in, by `connector.operations.sessions`; `connector.operations.token_throttle`
  slows down who guesses.
- `connector.operations.api`: the API; `connector.operations.api_docs`: its page.
- `connector.operations.console`: the pages, in English or by `connector.operations.translations`. Of their contents:
  `connector.operations.status`, `connector.operations.cards`, `connector.operations.charts`,
  `connector.operations.pictures`, `connector.operations.formats` and `connector.operations.diagnosis`.
- `connector.operations.kafka_reader`: what both read from Kafka.
- `connector.operations.catalog`: the index of instances; `connector.operations.search`: one search over everything.
- `connector.operations.history`: rates of the past.
"""
