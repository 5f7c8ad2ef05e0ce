"""What can go wrong with a test server, each with the way out in its message."""


class ServerError(Exception):
    """Root: something about a test server."""


class NotInstalled(ServerError):
    """Java, Maven or the servers' jars are missing; the message says how to get them."""


class DidNotStart(ServerError):
    """A server died or hung at its start; the message ends with its last log lines."""
