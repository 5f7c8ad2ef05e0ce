"""The public HTTP listener: from a connection to a request, and from an outcome to an answer."""
