# One image for all roles: api, worker, upkeep.
#
# Without a network: put the wheels of requirements.txt into ./wheels, name a base image that holds Python and git
# in PYTHON_IMAGE, and build with --build-arg PIP_NO_INDEX=1 --build-arg PIP_FIND_LINKS=/build
ARG PYTHON_IMAGE=python:3.12-slim

FROM ${PYTHON_IMAGE} AS build
ARG PIP_NO_INDEX
ARG PIP_FIND_LINKS
WORKDIR /build
# The brackets make the folder optional.
COPY requirements.txt wheel[s] ./
RUN python3 -m venv /opt/venv \
 && /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes --only-binary :all: \
      -r requirements.txt \
 && /opt/venv/bin/pip uninstall --quiet --yes pip setuptools

FROM ${PYTHON_IMAGE}
RUN command -v git >/dev/null \
 || { apt-get update && apt-get install --yes --no-install-recommends git ca-certificates && rm -rf /var/lib/apt/lists/*; }
RUN useradd --system --uid 10001 --home-dir /data --shell /usr/sbin/nologin review \
 && install --directory --owner review --mode 0700 /data
COPY --from=build /opt/venv /opt/venv
COPY worker /app/worker
COPY tasks /app/tasks
COPY prompts /app/prompts
RUN printf '#!/bin/sh\nexec /opt/venv/bin/python -m worker.cli "$@"\n' > /usr/local/bin/kimi-review \
 && chmod 0755 /usr/local/bin/kimi-review \
 && PYTHONPATH=/app /opt/venv/bin/python -m compileall -q /app
ENV PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    KIMI_REVIEW_HOME=/data
# Holds nothing: settings come from the environment, a .env of the build must not slip in.
WORKDIR /app
USER review
VOLUME /data
ENTRYPOINT ["kimi-review"]
CMD ["--help"]
