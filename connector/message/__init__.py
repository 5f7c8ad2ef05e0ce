"""What WeDa sends, read and written: bytes to message to record to bytes. Pure but for the schemas' files."""
