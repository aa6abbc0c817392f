"""A project that has installed the app and nothing else: no Celery application, no setting of ours.

The engine is PostgreSQL's, and never connected to.
"""

SECRET_KEY = "for-tests-only"
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "rest_framework",
    "mptt",
    "morango",
    "morango_celery",
]
DATABASES = {"default": {"ENGINE": "django.db.backends.postgresql", "NAME": "never"}}
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = True
