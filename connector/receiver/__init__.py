"""The public HTTP listener: turns connections into requests, and outcomes into answers.

The modules, from the connection inwards:

1. `connector.receiver.tls`: the handshake, and the names in a client certificate.
2. `connector.receiver.connection`: reads head and body, within limits; a request that arrives whole skips ASGI.
3. `connector.receiver.head`: path, method and headers, and the source that the path names.
4. `connector.receiver.application`: `Receiver` performs the following steps, and answers.
5. `connector.receiver.tracing`: the span of the request, if tracing is enabled.
6. `connector.receiver.authentication`: checks token or client certificate, with `connector.receiver.client_address` for
   sources with networks; `connector.receiver.signatures` verifies a signature once the body has arrived.
7. `connector.receiver.limits`: limits the source's rate, and the memory of bodies that arrive in pieces.
8. `connector.receiver.replay_protection`: accepts each signed request only once.
"""
