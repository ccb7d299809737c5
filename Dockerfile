# The image of a BitNexus process: `bitnexus serve` by default, `bitnexus migrate` and every other command by argument.
# It holds no PostgreSQL (deploy/runtime_requirements.py says why): it needs DATABASE_URL and BITNEXUS_MASTER_KEY.

# The Python that the tests run on.
ARG PYTHON=3.11-slim

FROM python:${PYTHON} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PIP_CONSTRAINT=/source/constraints.txt
WORKDIR /source

# What others wrote comes first: this layer stays as long as the versions do.
COPY pyproject.toml constraints.txt ./
COPY deploy/runtime_requirements.py deploy/
RUN python -m venv --without-pip /opt/bitnexus \
    && python deploy/runtime_requirements.py pyproject.toml > /tmp/requirements.txt \
    && pip --python /opt/bitnexus/bin/python install --requirement /tmp/requirements.txt

COPY README.md LICENSE ./
COPY domain domain/
COPY ledger ledger/
COPY commands commands/
COPY projections projections/
COPY reactions reactions/
COPY api api/
COPY migrations migrations/
COPY bitnexus bitnexus/
# The last line stops the build if a module at start-up needs what was left out.
RUN pip --python /opt/bitnexus/bin/python install --no-deps . \
    && /opt/bitnexus/bin/bitnexus --help > /dev/null

FROM python:${PYTHON}
# A number, so that an orchestrator can see that it is not root.
RUN groupadd --system --gid 10001 bitnexus \
    && useradd --system --uid 10001 --gid bitnexus --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin bitnexus
# The list of erasures is written there. A volume that is mounted there for the first time takes over owner and mode.
RUN install --directory --owner=bitnexus --group=bitnexus --mode=0700 /var/lib/bitnexus
COPY --from=build /opt/bitnexus /opt/bitnexus
ENV PATH=/opt/bitnexus/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /opt/bitnexus
USER 10001:10001
EXPOSE 4000

# /health answers 503 when the database is gone, which urllib raises. No proxy: the address is this container's own.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "from urllib.request import ProxyHandler, build_opener; build_opener(ProxyHandler({})).open('http://127.0.0.1:4000/health', timeout=4)"]

ENTRYPOINT ["bitnexus"]
CMD ["serve", "--host", "0.0.0.0"]
