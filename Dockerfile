# syntax=docker/dockerfile:1
# Build:  docker build -t cemobam .
# For GPUs:  docker build -t cemobam:cuda --build-arg PACKAGES="gcc libc6-dev" .
# Run:    docker run --rm -v "$PWD:/work" --user "$(id -u):$(id -g)" cemobam demo --quick
# On GPUs Triton needs a C compiler when it runs. TORCH_INDEX is another package index for torch: with PyTorch's index of
# CPU wheels the image has no CUDA libraries and is gigabytes smaller. docs/install.md says more.
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
ARG TORCH_INDEX=
ARG EXTRAS=all
ENV PATH=/opt/cemobam/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/cemobam
WORKDIR /src
COPY constraints.txt ./
RUN pip install "$(grep '^torch==' constraints.txt)" ${TORCH_INDEX:+--index-url "$TORCH_INDEX"}
COPY . ./
RUN pip install --constraint constraints.txt ".[${EXTRAS}]"

FROM ${BASE}
ARG PACKAGES=
RUN if [ -n "${PACKAGES}" ]; then \
        apt-get update && apt-get install -y --no-install-recommends ${PACKAGES} && rm -rf /var/lib/apt/lists/*; \
    fi
RUN useradd --create-home --uid 1000 cemobam && mkdir /work && chown cemobam /work
COPY --from=build /opt/cemobam /opt/cemobam
# The home folder is one that any user of docker run --user can write to.
ENV PATH=/opt/cemobam/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1
USER cemobam
WORKDIR /work
ENTRYPOINT ["cemobam"]
CMD ["--help"]
