"""The steps of one message; dead letters, and how they are reprocessed."""
