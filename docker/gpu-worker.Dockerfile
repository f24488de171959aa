# A machine of the Ray cluster, with replicas on its GPUs. With `--head`: the first machine.
#
#   docker build -f docker/gpu-worker.Dockerfile -t inferstack/gpu-worker .
#
# Without GPUs, at a tenth of the size:
#
#   docker build -f docker/gpu-worker.Dockerfile -t inferstack/cpu-worker \
#       --build-arg BASE_IMAGE=ubuntu:24.04 \
#       --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu .
ARG BASE_IMAGE=nvidia/cuda:13.0.2-base-ubuntu24.04

FROM ${BASE_IMAGE} AS python
ARG DEBIAN_FRONTEND=noninteractive
# Not pinned: the archive keeps only the newest, and security updates are wanted.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/*

FROM python AS build
ARG DEBIAN_FRONTEND=noninteractive
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python3 -m venv /opt/inferstack
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
# torch first, in a layer of its own: it is most of the image and changes least.
# The wheel of the default index brings the CUDA libraries; the base image only what the driver needs.
ARG TORCH_INDEX=
RUN /opt/inferstack/bin/pip install --quiet -c constraints.txt \
        ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch
RUN mkdir inferstack && echo '__version__ = "0"' > inferstack/__init__.py \
    && /opt/inferstack/bin/pip install --quiet -c constraints.txt '.[worker,demo]' \
    && /opt/inferstack/bin/pip uninstall --quiet --yes inferstack
COPY inferstack inferstack
RUN /opt/inferstack/bin/pip install --quiet --no-deps . \
    && /opt/inferstack/bin/python -m compileall -q /opt/inferstack/lib/python3*/site-packages/inferstack

FROM python
RUN groupadd --gid 10001 inferstack \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/inferstack \
        --shell /usr/sbin/nologin inferstack \
    && install -d -o 10001 -g 10001 -m 700 /var/lib/inferstack /run/inferstack
COPY --from=build /opt/inferstack /opt/inferstack
COPY models /models
ENV PATH=/opt/inferstack/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    INFERSTACK_HOME=/var/lib/inferstack \
    MODEL_PATH=/models \
    METRICS_HOST=0.0.0.0 \
    METRICS_PORT=9464 \
    HF_HUB_OFFLINE=1
USER 10001:10001
WORKDIR /var/lib/inferstack
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=10s --start-period=120s --retries=3 \
    CMD ["python", "-P", "-m", "inferstack.telemetry.pulse", "node"]
CMD ["python", "-P", "-m", "inferstack.worker.node"]
