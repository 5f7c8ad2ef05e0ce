"""Turns the bytes of a request into an event and its encoded records. Pure but for schemas and ids.

A message passes through these modules in order:

1. `connector.message.parsing`: bytes → `Message`, the fields by name, as they were sent.
2. `connector.message.redact`: removes what must not be published, if the settings ask for it.
3. `connector.message.events`: `convert` makes the `Event`; its fields are typed and encoded once, by
   `connector.message.records` (with `connector.message.conversion` and `connector.message.avro`).
4. `connector.message.routes`: the streams that the event goes to, and their topics; `connector.message.flat`: the
   records of the flat streams; `connector.message.ingest_ids`: the event's id.
5. `connector.message.headers` and `connector.message.encoding`: Kafka headers, and the header before Avro's bytes.

`connector.message.decoding` takes the first three steps in one. All share `connector.message.weda` (WeDa's vocabulary),
`connector.message.persons` (the persons in its maps), `connector.message.schemas` (the Avro schemas) and
`connector.message.compatibility` (of the schemas' versions).
"""
