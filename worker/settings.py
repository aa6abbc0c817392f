"""Django settings of a deployment, from the environment.

Required: DATABASE_URL, and SECRET_KEY unless DEBUG=1. Workers and a server that enqueues need
REDIS_URL, or BROKER_URL for another broker.
"""

from __future__ import annotations

import os
from pathlib import Path

from morango.constants import settings as morango_defaults

from morango_celery.celery_settings import *  # noqa: F403  (settings are modules of names)
from morango_celery.celery_settings import CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT
from worker import environment

DEBUG = environment.flag("DEBUG")
SECRET_KEY = (
    "for-development-only"
    if DEBUG and not os.environ.get("SECRET_KEY")
    else environment.required("SECRET_KEY", "Set it to a long random text, or DEBUG=1 for development.")
)
ALLOWED_HOSTS = environment.words("ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]")

if environment.flag("BEHIND_TLS"):  # a proxy that overrides the clients' own header
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = True
    # Health checks come from the container itself, without TLS
    SECURE_REDIRECT_EXEMPT = [r"^api/morango/v1/morangoinfo/1/$", r"^healthz$"]

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "rest_framework",
    "mptt",
    "morango",
    "morango_celery",
    "worker.school",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]
ROOT_URLCONF = "worker.urls"
WSGI_APPLICATION = "worker.wsgi.application"
STATIC_URL = "/static/"
STATIC_ROOT = os.environ.get("STATIC_ROOT") or str(Path.cwd() / "static")
AUTH_USER_MODEL = "school.Account"
USE_TZ = True
TIME_ZONE = "UTC"

# Devices ask for JSON; the pages for browsers would show others' data.
REST_FRAMEWORK = {"DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"]}

DATABASES = {"default": environment.database()}
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": environment.log_level()},
}

# Morango and this package
MORANGO_SERIALIZE_OPERATIONS = (
    "morango_celery.operations:StreamingSerializeOperation",
    *morango_defaults.MORANGO_SERIALIZE_OPERATIONS,
)
MORANGO_DESERIALIZE_OPERATIONS = (
    "morango_celery.operations:DeserializeOperation",
    *morango_defaults.MORANGO_DESERIALIZE_OPERATIONS,
)
MORANGO_CELERY: dict[str, object] = {
    "MODE": os.environ.get("MORANGO_CELERY_MODE") or "await",
    "BATCH_SIZE_RECORDS": environment.whole_number("MORANGO_CELERY_BATCH_SIZE_RECORDS", default=None),
}

# Celery. Without REDIS_URL the broker's host is a name that can't exist and tells the missing variable: a
# server that never enqueues needs none.
REDIS_URL = os.environ.get("REDIS_URL", "").strip()
BROKER_URL = os.environ.get("BROKER_URL", "").strip() or REDIS_URL
CELERY_BROKER_URL = BROKER_URL or "redis://redis_url-is-not-set.invalid:6379/0"
CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT = environment.whole_number(
    "WORKER_SOFT_SHUTDOWN_SECONDS", default=CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT
)
