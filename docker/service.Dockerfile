# The service; with EXTRAS=cpu,ray a machine of the panel on Ray. No weights inside but the
# demonstration's: mount a home folder.
#
#   docker build -f docker/service.Dockerfile -t gsco .
#   docker run --read-only --tmpfs /tmp -v gsco-home:/var/lib/gsco -p 127.0.0.1:8000:8000 gsco
#
# The registry's torch runs on CPUs and NVIDIA GPUs, and brings 4 GB of CUDA. The small one, for
# CPUs alone: --build-arg TORCH_INDEX=URL, of the index that PyTorch's makers have for it.
FROM python:3.11-slim-bookworm AS sources
COPY docker/constraints.txt /etc/gsco/constraints.txt
# Published as source alone; everything else is a wheel.
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheels \
        --constraint /etc/gsco/constraints.txt rouge-score

FROM python:3.11-slim-bookworm AS ours
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY service service
COPY specialists specialists
COPY retrieval retrieval
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.11-slim-bookworm
ARG EXTRAS=cpu,postgres,otel
ARG TORCH_INDEX=
COPY docker/constraints.txt /etc/gsco/constraints.txt
# Three layers: what changes with torch (almost all of the image), with the other versions, with the
# code. No compiler is here: wheels only, which the base's pip puts into an environment that has no
# pip of its own.
RUN python -m venv --without-pip /opt/gsco \
    && PIP_EXTRA_INDEX_URL="${TORCH_INDEX}" python -m pip --python /opt/gsco/bin/python install \
        --no-cache-dir --only-binary :all: --constraint /etc/gsco/constraints.txt torch torchvision
COPY --from=sources /wheels /wheels
RUN PIP_EXTRA_INDEX_URL="${TORCH_INDEX}" python -m pip --python /opt/gsco/bin/python install \
        --no-cache-dir --only-binary :all: --find-links /wheels \
        --requirement /etc/gsco/constraints.txt \
    && echo "PATH=/opt/gsco/bin:\$PATH" > /etc/profile.d/gsco.sh \
    && useradd --uid 10001 --home-dir /var/lib/gsco --create-home gsco
COPY --from=ours /wheels /wheels
RUN python -m pip --python /opt/gsco/bin/python install --no-cache-dir --only-binary :all: \
        --constraint /etc/gsco/constraints.txt "$(echo /wheels/gsco-*.whl)[${EXTRAS}]"

ENV PATH=/opt/gsco/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    MPLCONFIGDIR=/tmp/matplotlib \
    HF_HUB_OFFLINE=1 \
    GSCO_HOME=/var/lib/gsco \
    GSCO_HOST=0.0.0.0 \
    GSCO_AUTHENTICATION=true
# By number: Kubernetes cannot tell that a name is not root's.
USER 10001:10001
WORKDIR /var/lib/gsco
VOLUME ["/var/lib/gsco"]
EXPOSE 8000

# Ready, or degraded and still answering. The image has no curl.
HEALTHCHECK --interval=10s --timeout=8s --start-period=2m --retries=3 CMD ["python", "-c", \
    "import os, urllib.request as http; \
http.urlopen(f\"http://127.0.0.1:{os.environ.get('GSCO_PORT', 8000)}/readyz\", timeout=7)"]

ENTRYPOINT ["gsco"]
CMD ["serve"]
