"""Sender side of Celery: messages by task name, their priorities, and events about runs."""
