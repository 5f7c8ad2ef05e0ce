"""What the connector's two sides look like to others, as documents that tools read.

AsyncAPI of the topics and OpenAPI of the public listener. Everything in them comes from the code that they describe:
the routing table, the schemas, the settings' defaults, and the connector's own steps, run over sample requests.
``python -m tools.descriptions asyncapi|openapi`` prints them.
"""
