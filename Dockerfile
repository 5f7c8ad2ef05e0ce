# Python 3.11, on which the tests run, on Debian 13, which has full support until 2028. Renovate updates the digest.
ARG PYTHON=3.11-slim-trixie@sha256:9534e5a8e315485d4061ed659af0fd78a284c015f9b73661b41d6bab25604534

FROM python:${PYTHON} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY requirements/ requirements/
RUN python -m venv /opt/builder \
 && /opt/builder/bin/python -m pip install --no-compile --require-hashes -r requirements/build.txt \
 && python -m venv --without-pip /opt/weda-connector \
 && /opt/builder/bin/python -m pip --python /opt/weda-connector/bin/python install --no-compile --require-hashes --only-binary :all: -r requirements/postgresql.txt -r requirements/otlp.txt -r requirements/notify.txt
COPY pyproject.toml README.md LICENSE ./
COPY avro/ avro/
COPY connector/ connector/
RUN /opt/builder/bin/python -m pip wheel --no-deps --no-build-isolation --wheel-dir /src/dist . \
 && /opt/builder/bin/python -m pip --python /opt/weda-connector/bin/python install --no-compile --no-deps /src/dist/*.whl \
 && /opt/weda-connector/bin/python -m compileall -q -j 0 /opt/weda-connector/lib

FROM python:${PYTHON}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="weda-connector" \
      org.opencontainers.image.description="Receives WeDa workflow messages over HTTP and publishes them to Kafka as Avro records" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# The ids are fixed: volumes belong to them, and Kubernetes cannot verify from a name that the user is not root. The folder
# is also writable for the group 0, which every user that OpenShift chooses belongs to.
RUN groupadd --gid 10001 weda \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/weda-connector --shell /usr/sbin/nologin weda \
 && install --directory --owner 10001 --group 0 --mode 0770 /var/lib/weda-connector
COPY --from=build /opt/weda-connector /opt/weda-connector
ENV PATH=/opt/weda-connector/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# The default place of the journal (var/journal.db). Nothing else is written, so the root file system may be read-only.
WORKDIR /var/lib/weda-connector
VOLUME /var/lib/weda-connector
USER 10001:10001
EXPOSE 8080 9464
# It reads the settings, so it follows the port and TLS of the operations listener.
HEALTHCHECK --interval=15s --timeout=10s --start-period=60s --retries=3 \
  CMD ["python", "-m", "connector.admin.liveness"]
ENTRYPOINT ["weda-connector"]
CMD ["serve"]
