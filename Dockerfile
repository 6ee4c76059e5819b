# One image per microservice: they share every layer; a target adds an entry point and a label. No registry is needed where PYTHON_IMAGE names a local image (`make images`).
#   docker build --target relay -t airavata-workflow/relay:local .
# Run with: --read-only --cap-drop ALL --user 10001 --tmpfs /tmp (worker processes keep their sockets there).
ARG PYTHON_IMAGE=python:3.13-slim@sha256:7c61056e61ac89e852de05f3dc6fa51a6dd2181797bceed46aa725dd7cb2cd3b

# ---- what is installed, and the list of it ---------------------------------------------------------------------------------------------------------------
FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CERT=/etc/ssl/certs/ca-certificates.crt SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt UV_LINK_MODE=copy UV_NO_CACHE=1
WORKDIR /build
COPY requirements.build.lock requirements.runtime.lock ./
RUN python3 -m venv /tools && /tools/bin/pip install -q --no-cache-dir --require-hashes -r requirements.build.lock
RUN python3 -m venv --without-pip /opt/airavata \
 && /tools/bin/uv pip install -q --python /opt/airavata/bin/python --require-hashes --compile-bytecode -r requirements.runtime.lock
COPY pyproject.toml README.md ./
COPY app app
COPY outbox_relay outbox_relay
COPY components components
COPY observability observability
COPY migrations migrations
COPY airavata_workflow airavata_workflow
RUN /tools/bin/uv build -q --wheel --no-create-gitignore --no-build-isolation --python /tools/bin/python -o /out . \
 && /tools/bin/uv pip install -q --python /opt/airavata/bin/python --no-deps --compile-bytecode /out/*.whl
RUN /tools/bin/cyclonedx-py environment --output-reproducible --output-format JSON --output-file /out/sbom.cdx.json /opt/airavata/bin/python \
 && /tools/bin/pip-licenses --python=/opt/airavata/bin/python --format=markdown --with-urls --order=name --output-file=/out/licences.md

# The wheel that is inside (it equals the released one), what else is inside, and under which licences.
FROM scratch AS outputs
COPY --from=build /out /out

# ---- what runs ----------------------------------------------------------------------------------------------------------------------------------------
FROM ${PYTHON_IMAGE} AS base
RUN rm -rf /usr/local/lib/python3.*/site-packages/pip /usr/local/lib/python3.*/site-packages/pip-*.dist-info /usr/local/lib/python3.*/ensurepip /usr/local/bin/pip* \
 && groupadd --gid 10001 airavata && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin airavata
COPY --from=build /opt/airavata /opt/airavata
ENV PATH=/opt/airavata/bin:/usr/local/bin:/usr/bin:/bin PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONSAFEPATH=1 \
    AIRAVATA_ADMIN_LISTEN=0.0.0.0:9464 AIRAVATA_PUBLIC_LISTEN=0.0.0.0:8080 AIRAVATA_INTERNAL_LISTEN=0.0.0.0:8081 AIRAVATA_NUDGE_LISTEN=0.0.0.0:9465
USER 10001:10001
EXPOSE 9464
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9464/livez', timeout=3)"]
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.vendor="Apache Airavata" org.opencontainers.image.licenses="Apache-2.0" org.opencontainers.image.version="${VERSION}" org.opencontainers.image.revision="${REVISION}"

FROM base AS api
LABEL org.opencontainers.image.title="airavata-workflow api"
EXPOSE 8080 8081
ENTRYPOINT ["python", "-m", "app.api"]

FROM base AS relay
LABEL org.opencontainers.image.title="airavata-workflow relay"
EXPOSE 9465/udp
ENTRYPOINT ["python", "-m", "outbox_relay"]

FROM base AS generator
LABEL org.opencontainers.image.title="airavata-workflow generator"
ENTRYPOINT ["python", "-m", "components.workflow_generator"]

FROM base AS scheduler
LABEL org.opencontainers.image.title="airavata-workflow scheduler"
ENTRYPOINT ["python", "-m", "components.task_scheduler"]

FROM base AS executor-environment
LABEL org.opencontainers.image.title="airavata-workflow executor-environment"
ENTRYPOINT ["python", "-m", "components.task_executors", "--types", "ENV_SETUP,ENV_CLEANUP"]

FROM base AS executor-data
LABEL org.opencontainers.image.title="airavata-workflow executor-data"
ENTRYPOINT ["python", "-m", "components.task_executors", "--types", "INGRESS_STAGING,EGRESS_STAGING"]

FROM base AS executor-job
LABEL org.opencontainers.image.title="airavata-workflow executor-job"
ENTRYPOINT ["python", "-m", "components.task_executors", "--types", "JOB_SUBMISSION"]

FROM base AS event-sink
LABEL org.opencontainers.image.title="airavata-workflow event-sink"
ENTRYPOINT ["python", "-m", "components.event_sink"]

# `airavata admin …`: first migrate, then topics --apply. Ends by itself, so nobody asks how it is.
FROM base AS migrations
LABEL org.opencontainers.image.title="airavata-workflow migrations"
HEALTHCHECK NONE
ENTRYPOINT ["airavata", "admin"]
CMD ["migrate"]
