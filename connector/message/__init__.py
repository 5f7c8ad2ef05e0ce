"""From the bytes of a request to the encoded fields of an event and its records. Pure, but for reading the schemas.

In the order of a message:

1. `connector.message.parsing`: bytes → `Message`: the fields by name, as they were sent.
2. `connector.message.redact`: takes out what must not be published, if that is configured.
3. `connector.message.events`: `convert` makes the `Event`; its fields are typed and encoded once, by
   `connector.message.records` (with `connector.message.conversion` and `connector.message.avro`).
4. `connector.message.routes`: which streams it goes to, and their topics; `connector.message.flat`: the records of the
   flat streams; `connector.message.ingest_ids`: its id.
5. `connector.message.headers` and `connector.message.encoding`: Kafka headers, and the bytes before Avro's.

Beside them: `connector.message.weda` (WeDa's vocabulary), `connector.message.persons` (who is named in its maps),
`connector.message.schemas` (the Avro schemas) and `connector.message.compatibility` (of their versions).
"""
