"""From the bytes of a request to the encoded fields of an event and its records. Pure, but for reading the schemas.

In the order of a message:

1. `connector.message.parsing`: bytes → `Message`: the fields by name, as they were sent.
2. `connector.message.redact`: what must not be published is taken out, where that is asked for.
3. `connector.message.events`: `convert` makes the `Event`; its fields are typed and encoded once, by
   `connector.message.records` (with `connector.message.conversion` and `connector.message.avro`).
4. `connector.message.routes`: which streams it goes to, and their topics.
5. `connector.message.headers` and `connector.message.encoding`: Kafka headers, and the bytes before Avro's.

Beside them: `connector.message.weda` (WeDa's vocabulary), `connector.message.persons` (who is named in its maps) and
`connector.message.schemas` (the Avro schemas).
"""
