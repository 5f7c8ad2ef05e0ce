"""The steps of one message; dead letters, and how they are reprocessed.

- `connector.intake.pipeline`: `Pipeline.accept` parses, converts and deduplicates a message, makes its records and
  admits it.
- `connector.intake.dead_letters`: what could not become a record, as a record and read back.
- `connector.intake.listing`: the latest dead letters of the topics, and their reasons.
- `connector.intake.reprocessing`: dead letters through the pipeline again, each once.
- `connector.intake.dead_letter_count`: how many nobody has reprocessed.
"""
