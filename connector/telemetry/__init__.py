"""Metrics, health, logs and the latest requests."""
