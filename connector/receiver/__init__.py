"""The public HTTP listener: from a connection to a request, and from an outcome to an answer.

In the order of a request:

1. `connector.receiver.connection`: bytes → head and body, within bounds; a request that arrives whole skips ASGI.
2. `connector.receiver.application`: `Receiver` takes the steps from here on, and answers.
3. `connector.receiver.head`: path, method and headers; the source that the path names.
4. `connector.receiver.authentication`: token or client certificate; a signature is claimed with the head, and verified
   (`connector.receiver.signatures`) with the body.
5. `connector.receiver.limits`: the source's rate; the memory of bodies that arrive in pieces.
6. `connector.receiver.replay_protection`: a signed request is accepted once.
"""
