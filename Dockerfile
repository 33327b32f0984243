# streamlearn, in one image for learner and servers.
#
#   docker build -t streamlearn .                                  as PyPI gives torch (on x86 with CUDA libraries, large)
#   docker build -t streamlearn --build-arg TORCH_OPTIONS=... .    as the index named there gives it
#   docker build -t streamlearn:cuda --build-arg VARIANT=cuda .    refuses a torch without CUDA; asks for the GPU when run
#
# PyPI has one torch per platform. The small CPU-only wheels for x86 lie in an index of their own; "Get started" on the PyTorch
# site names it. Hand it to pip as TORCH_OPTIONS="--index-url URL". No index is named here, so the one your pip is set to rules.

ARG PYTHON_IMAGE=python:3.12-slim-bookworm
ARG VARIANT=cpu

FROM ${PYTHON_IMAGE} AS build
ARG VARIANT
ARG TORCH_OPTIONS=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/opt/streamlearn/bin:$PATH
RUN python -m venv /opt/streamlearn
# The options are several words, so they stand without quotes. pyproject.toml holds the bounds of versions.
# hadolint ignore=SC2086,DL3013
RUN pip install ${TORCH_OPTIONS} "torch>=2.8" \
 && python -c "import sys, torch; sys.exit(0 if torch.version.cuda or '${VARIANT}' != 'cuda' else 'VARIANT=cuda, but this torch has no CUDA')"
WORKDIR /build
COPY pyproject.toml README.md ./
COPY connectors connectors
COPY streamlearn streamlearn
# hadolint ignore=DL3013
RUN pip install ".[avro,kafka-codecs,grpc,otel,protobuf]"

FROM ${PYTHON_IMAGE} AS runtime
ENV PATH=/opt/streamlearn/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    NUMBA_CACHE_DIR=/tmp/numba \
    STREAMLEARN__STATE_DIR=/var/lib/streamlearn
RUN groupadd --gid 10001 streamlearn \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/streamlearn --shell /usr/sbin/nologin streamlearn \
 && install --directory --owner=10001 --group=10001 --mode=0750 /var/lib/streamlearn /etc/streamlearn
COPY --from=build /opt/streamlearn /opt/streamlearn
WORKDIR /var/lib/streamlearn
USER 10001:10001
# 8080 answers, 8081 gRPC, 8082 metrics. The root may be read-only; written are /var/lib/streamlearn, /tmp and /dev/shm.
EXPOSE 8080 8081 8082
VOLUME /var/lib/streamlearn
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8080/v2/health/live', timeout=4)"]
ENTRYPOINT ["streamlearn"]
CMD ["run", "/etc/streamlearn/config.yaml"]

FROM runtime AS cpu

FROM runtime AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

# hadolint ignore=DL3006
FROM ${VARIANT} AS final
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="streamlearn" \
      org.opencontainers.image.description="Learns from a stream of labelled samples without forgetting, and answers from the model it is training" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"
