# The operator's image: the wheel and its pinned, hashed dependencies on a base with Python and nothing else. It needs no shell.
#   docker build -t REGISTRY/tenure:0.1.0 .     buildah, podman and others alike
#   docker build --target sbom -o . .           writes tenure.cdx.json: what is inside (CycloneDX), also in the image itself
# Both bases have Debian 12's Python 3.11: what is installed on the first runs on the second. Pin them by digest where you build.
ARG BUILD_IMAGE=docker.io/library/debian:bookworm-slim
ARG BASE_IMAGE=gcr.io/distroless/python3-debian12:nonroot

FROM ${BUILD_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# hadolint ignore=DL3008
RUN python3 -c 'import venv, ensurepip' 2>/dev/null || { \
      apt-get update && apt-get install -y --no-install-recommends python3 python3-venv && rm -rf /var/lib/apt/lists/*; }
WORKDIR /src
# Dependencies first: they change less often than the program. Nothing is built from source, and nothing has another hash than the
# lock file says.
COPY requirements.txt requirements-build.txt ./
RUN python3 -m venv /build && python3 -m venv --without-pip /app \
    && /build/bin/pip install --require-hashes --only-binary :all: -r requirements-build.txt \
    && /build/bin/pip --python /app/bin/python install --require-hashes --only-binary :all: -r requirements.txt
COPY pyproject.toml ./
COPY operator operator
# The wheel is installed, never the tree.
RUN /build/bin/pip wheel --no-deps --no-build-isolation --no-index --wheel-dir /wheel . \
    && /build/bin/pip --python /app/bin/python install --no-deps --no-index /wheel/*.whl \
    && /build/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --of JSON -o /tenure.cdx.json /app/bin/python

FROM scratch AS sbom
COPY --from=build /tenure.cdx.json /

FROM ${BASE_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="tenure" \
      org.opencontainers.image.description="A Kubernetes operator that governs workload identities" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /app /app
COPY --from=build /tenure.cdx.json /usr/share/tenure/tenure.cdx.json
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 64310:64310
WORKDIR /
EXPOSE 9464
ENTRYPOINT ["/app/bin/python", "-m", "tenure"]
CMD ["run"]
