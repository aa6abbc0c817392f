"""Consumer side of Celery: a worker's command line, its bootsteps, its pool and its end."""
