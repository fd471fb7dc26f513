# vLLM with CUDA, and of the platform what a worker needs: core, workers and the one module that starts them.
FROM vllm/vllm-openai:v0.32.0
ENV PATH=/opt/tramontane/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_INPUT=1
USER 0:0
WORKDIR /src
COPY deploy/requirements/vllm.txt deploy/requirements/vllm.txt
# An environment of our own that sees the image's packages, so that theirs stay as they were tested.
RUN python3 -m venv --without-pip --system-site-packages /opt/tramontane \
 && python3 -m pip --python /opt/tramontane/bin/python install --no-cache-dir --requirement deploy/requirements/vllm.txt
COPY pyproject.toml README.md ./
COPY cli cli
COPY core core
COPY workers workers
RUN python3 -m pip --python /opt/tramontane/bin/python install --no-cache-dir --no-deps . \
 && groupadd --gid 10001 tramontane \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/tramontane --shell /usr/sbin/nologin tramontane \
 && install --directory --owner=10001 --group=10001 \
    /var/lib/tramontane /var/lib/tramontane/models /var/cache/tramontane
WORKDIR /var/lib/tramontane
USER 10001:10001
ENTRYPOINT []
CMD ["python", "-P", "-m", "cli.run", "worker"]
