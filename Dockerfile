# Two images from one file: `web` has no torch, `worker` has. Both run as an ordinary user, whose home is the one
# volume that they share.
FROM python:3.13-slim-trixie AS base
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    DJANGO_SETTINGS_MODULE=labeler.settings \
    QUINTET_HOME=/var/lib/quintet
RUN useradd --system --uid 990 --home-dir /var/lib/quintet --create-home --shell /usr/sbin/nologin quintet
WORKDIR /app

FROM base AS web
COPY requirements/web.txt requirements/
RUN pip install --require-hashes --only-binary :all: --requirement requirements/web.txt
COPY manage.py ./
COPY labeler labeler
COPY rlhf rlhf
COPY static static
COPY templates templates
USER quintet
VOLUME /var/lib/quintet
EXPOSE 8000
# Migrations and static files first, each only where needed; then the server takes this process's place.
CMD python manage.py prepare && exec gunicorn labeler.wsgi --bind 0.0.0.0:8000 \
    --worker-class gthread --workers 2 --threads 8 --preload --no-control-socket --worker-tmp-dir /dev/shm

FROM base AS worker
COPY requirements/worker.txt requirements/torch.txt requirements/
# Another index's build of torch, such as the one for CPUs alone: --build-arg PIP_EXTRA_INDEX_URL=…
ARG PIP_EXTRA_INDEX_URL
RUN pip install --require-hashes --no-deps --only-binary :all: --requirement requirements/worker.txt \
    && pip install --only-binary :all: --requirement requirements/torch.txt
COPY manage.py ./
COPY labeler labeler
COPY rlhf rlhf
COPY static static
COPY templates templates
USER quintet
VOLUME /var/lib/quintet
CMD ["python", "manage.py", "worker"]
