"""The composition root: builds, starts, watches, reloads and stops the connector."""
