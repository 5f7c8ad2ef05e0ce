"""Benchmarks: the connector beside a bare ASGI app, librdkafka alone and a connector as people write it.

`python -m bench` starts a real broker, measures in alternating rounds and writes `RESULTS.md`.
"""
