# Two stages: the first builds a virtual environment, with the request path compiled where that works; the second
# holds only that and runs as nobody special.
FROM python:3.11-slim-bookworm AS build

RUN apt-get update -q \
    && apt-get install -y -q --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
RUN python -m venv /opt/authgate
COPY pyproject.toml setup.py README.md ./
COPY dev/backend.py dev/backend.py
COPY authgate_fast authgate_fast
RUN AUTHGATE_COMPILE=auto /opt/authgate/bin/pip install --no-cache-dir . \
    && /opt/authgate/bin/authgate --version

FROM python:3.11-slim-bookworm

RUN groupadd --system --gid 10001 authgate \
    && useradd --system --uid 10001 --gid authgate --home-dir /var/lib/authgate --create-home authgate \
    && chmod 0700 /var/lib/authgate
COPY --from=build /opt/authgate /opt/authgate
COPY config/demo.yaml /etc/authgate/demo.yaml

ENV PATH=/opt/authgate/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    AUTHGATE_LISTEN=0.0.0.0:8080
USER authgate
WORKDIR /var/lib/authgate
VOLUME /var/lib/authgate
EXPOSE 8080

# The ops listener stays on the container's own loopback; AUTHGATE_OPS=0.0.0.0:9321 opens it to the network.
HEALTHCHECK --interval=5s --timeout=3s --start-period=5s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:9321/healthz', timeout=2)"]

STOPSIGNAL SIGTERM
ENTRYPOINT ["authgate"]
CMD ["run"]
