# vLLM on a GPU for MedDr: the published image, and this project as the plug-in that tells vLLM the
# model type internvl_chat. No weights inside: mount a converted folder (docs/meddr.md).
#
#   docker build -f docker/vllm.Dockerfile -t gsco-vllm .
#   docker run --gpus all --ipc=host -p 127.0.0.1:8001:8000 -v /data/meddr:/model:ro gsco-vllm
#
# Options of `vllm serve` go behind the name of the image and follow those of ENTRYPOINT.
ARG VLLM_VERSION=v0.33.0
FROM vllm/vllm-openai:${VLLM_VERSION}

COPY pyproject.toml README.md LICENSE /src/
COPY service /src/service
COPY specialists /src/specialists
COPY retrieval /src/retrieval
# Only the plug-in is needed: what the project depends on would replace vLLM's own torch. A build
# fails where it does not load, rather than a server.
RUN python3 -m pip install --no-cache-dir --no-deps /src && rm -rf /src \
    && python3 -c "from importlib.metadata import entry_points; \
    (plugin,) = entry_points(group='vllm.general_plugins', name='gsco'); plugin.load()(); \
    from transformers import CONFIG_MAPPING; assert 'internvl_chat' in CONFIG_MAPPING" \
    && useradd --create-home --uid 10001 gsco
# By number: Kubernetes cannot tell that a name is not root's.
USER 10001:10001
WORKDIR /home/gsco

# Nothing is fetched or reported: the model is the folder that is mounted.
ENV HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1
EXPOSE 8000

# Ready when the weights are read, which takes minutes for 75 GiB. The image need not have curl.
HEALTHCHECK --interval=15s --timeout=5s --start-period=20m --retries=4 CMD ["python3", "-c", \
    "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]

ENTRYPOINT ["vllm", "serve", "/model", "--host", "0.0.0.0", "--port", "8000", \
    "--served-model-name", "meddr", "--limit-mm-per-prompt", "{\"image\": 1}", \
    "--enable-prompt-tokens-details"]
CMD ["--max-model-len", "4096"]
