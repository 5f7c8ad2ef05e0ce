"""What the commands do, for `connector.cli`.

- `connector.admin.config_file`: a first configuration file; `connector.admin.doctor`: checks of everything around.
- `connector.admin.client`: HTTP to a running connector; `connector.admin.search`: where a message is.
- `connector.admin.backlog`: the journal of a connector that is gone.
- `connector.admin.liveness`: the image's health check.
"""
