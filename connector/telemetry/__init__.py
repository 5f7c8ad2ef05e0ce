"""Metrics, health, logs and the latest requests.

- `connector.telemetry.metrics`: every metric; `connector.telemetry.counts` and `connector.telemetry.gauges`: kinds of
  metrics that prometheus_client does not have; `connector.telemetry.ledger`: the counts that must balance.
- `connector.telemetry.health`: the state that probes show.
- `connector.telemetry.logs`: the log, which never blocks its callers.
- `connector.telemetry.recent`: the latest requests, for the console.
- `connector.telemetry.tracing`: spans for OpenTelemetry.
"""
