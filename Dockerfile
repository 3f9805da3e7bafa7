# The daemon in a container. The core image needs no ML library and trains against HUD's service:
#   docker build -t hud-orchestrate .
# With the embedded service (torch) inside:
#   docker build -t hud-orchestrate:local --build-arg EXTRAS=local .
ARG PYTHON_VERSION=3.12
FROM python:${PYTHON_VERSION}-slim AS build
ARG EXTRAS=""
WORKDIR /src
RUN python -m venv /venv
ENV PATH=/venv/bin:$PATH
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY hud_orchestrator hud_orchestrator
# The constraints pin torch to a release with a CPU build, and only matter when EXTRAS asks for torch.
RUN pip install --no-cache-dir -c constraints.txt ".${EXTRAS:+[$EXTRAS]}"

FROM python:${PYTHON_VERSION}-slim
# An id that volumes can be given to; the daemon needs no privilege.
RUN useradd --uid 10001 --create-home orchestrator \
    && install -d -o orchestrator -g orchestrator /data
COPY --from=build /venv /venv
COPY --chown=root:root examples /data/examples
COPY --chown=root:root configs /data/configs
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    XDG_CACHE_HOME=/data/cache
USER orchestrator
WORKDIR /data
# runs/ is written here; keys come from the environment (--env HUD_API_KEY, --env-file), never from the image.
VOLUME /data
# SIGTERM drains: give it longer than run.drain_s, as in `docker stop --time 90`.
STOPSIGNAL SIGTERM
ENTRYPOINT ["hud-orchestrate"]
CMD ["--help"]
