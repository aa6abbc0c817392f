"""Flower for this package's tasks: ``python -m morango_celery.contrib.flower --port=5555``.

It knows the broker alone (REDIS_URL, or BROKER_URL for another one than Redis), and needs neither the
project's settings nor its database. A project that starts Flower with its own Celery application writes one
line in its ``flowerconfig.py``: ``from morango_celery.contrib.flower.config import *``.
"""
