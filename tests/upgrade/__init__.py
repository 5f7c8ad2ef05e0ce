"""What an earlier version has left on disk and in Kafka, frozen below ``tests/data``, against this version."""
