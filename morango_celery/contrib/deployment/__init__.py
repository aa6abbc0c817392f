"""Files to deploy a project with: containers, systemd units, and the database's roles.

``python -m morango_celery.contrib.deployment FOLDER --project myproject`` copies them; docs/how-to/host.md
explains them.
"""
