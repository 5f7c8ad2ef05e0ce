"""The public HTTP listener: from a connection to a request, and from an outcome to an answer.

In the order of a request:

1. `connector.receiver.tls`: the handshake, and the names in a client certificate.
2. `connector.receiver.connection`: bytes → head and body, within bounds; a request that arrives whole skips ASGI.
3. `connector.receiver.application`: `Receiver` takes the steps from here on, and answers.
4. `connector.receiver.tracing`: the span of the request, where tracing is on.
5. `connector.receiver.head`: path, method and headers; the source that the path names.
6. `connector.receiver.authentication`: token or client certificate, and `connector.receiver.client_address` for sources
   with networks; a signature is claimed with the head, and verified (`connector.receiver.signatures`) with the body.
7. `connector.receiver.limits`: the source's rate; the memory of bodies that arrive in pieces.
8. `connector.receiver.replay_protection`: a signed request is accepted once.
"""
