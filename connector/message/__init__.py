"""From the bytes of a request to the encoded fields of an event and its records. Pure, but for reading the schemas."""
