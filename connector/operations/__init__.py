"""The operations listener: metrics, probes, and the API and pages for those who run the connector."""
