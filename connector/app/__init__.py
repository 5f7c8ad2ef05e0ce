"""The composition root: builds, starts, watches, reloads and stops the connector.

- `connector.app.run`: the process: connectors one after the other, until a signal (`connector.app.signals`) stops it.
- `connector.app.connector`: one connector: its start in numbered steps, and its stop.
- `connector.app.server`: the sockets and HTTP servers of both listeners.
- `connector.app.watch`: the tasks that run beside the listeners; `connector.app.brokers`: the one that watches brokers
  and topics; `connector.app.gauges`: the one that watches journal, ledger and parts.
- `connector.app.canary`: messages of the connector's own.
- `connector.app.reload`: new settings, by `connector.app.files`.
- `connector.app.certificates`: when certificates expire.
"""
