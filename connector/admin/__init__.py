"""The work of the commands in `connector.cli`.

- `connector.admin.config_file`: writes a first configuration file.
- `connector.admin.doctor`: checks settings, Kafka, registry, journal and clock.
- `connector.admin.client`: HTTP client of a running connector; `connector.admin.search`: finds a message.
- `connector.admin.backlog`: counts, exports and publishes the journal of a stopped connector.
- `connector.admin.liveness`: the image's health check.
"""
