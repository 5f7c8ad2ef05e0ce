"""The composition root: builds, starts, watches, reloads and stops the connector.

- `connector.app.run`: runs the process: one connector after another, until a signal (`connector.app.signals`) stops it.
- `connector.app.connector`: starts one connector in numbered steps, and stops it.
- `connector.app.server`: the sockets and HTTP servers of both listeners.
- `connector.app.watch`: the background tasks; `connector.app.brokers` watches brokers and topics, and
  `connector.app.gauges` the journal, the ledger and the connector's own parts.
- `connector.app.canary`: sends test messages and reads them back.
- `connector.app.reload`: applies changed settings; `connector.app.files` notices the change.
- `connector.app.certificates`: reports when certificates expire.
"""
