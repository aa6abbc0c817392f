"""Base class of tasks whose large arguments travel as references: the store's Celery side.

A header of the message lists the arguments that are references. Positions count from the end, for Celery
adds the result of the preceding task at the beginning.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

from celery.contrib.django.task import DjangoTask

from morango_celery.celery_compat import is_workers_call
from morango_celery.errors import InvalidMessageError, PayloadStoreUnavailableError
from morango_celery.payloads.configured import payload_store
from morango_celery.payloads.offload import LINKED, MARK, ArgumentOffloader, Place, due_in_seconds
from morango_celery.payloads.reference import Reference
from morango_celery.version import PAYLOAD_FORM, PAYLOAD_FORM_HEADER

MAX_PAUSE_SECONDS = 60


class PayloadTask(DjangoTask):
    """Base class for tasks of any project: ``@shared_task(base=PayloadTask)``.

    An argument that is large as JSON is stored, and its message carries a reference to it. A worker resolves
    that before the body runs. Bodies and callers notice nothing, with two exceptions. Celery's hooks and
    signals, and ``self.request.args``, see the reference. And a message of a task of another class is not
    changed: arguments of the tasks that are linked to it are stored only when those tasks are sent.

    A given `Reference` is resolved like one that was made here. So a value that many messages share is
    stored, and hashed, once: by ``payload_store().put(value)``.

    When the store can't be reached, `apply_async` raises `PayloadStoreUnavailableError` and sends nothing.
    In a worker, the task is retried as its ``max_retries`` allows.

    Messages have to be JSON, Celery's default. With another serializer, all arguments travel inline.
    """

    abstract = True

    inline_arguments: bool | Collection[str] = ()
    """Names of arguments that always travel in the message; True for all of them."""

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        producer: Any = None,
        link: Any = None,
        link_error: Any = None,
        shadow: str | None = None,
        **options: Any,
    ) -> Any:
        """Send the task, as Celery's own method does, after storing large arguments.

        :raises MessageTooLargeError: the arguments that may not be stored are larger than MAX_MESSAGE_BYTES
        :raises PayloadStoreUnavailableError: nothing was sent
        Cost: no request to the store without large arguments; one or two for any number of them.
        """
        app = self.app
        serializer = options.get("serializer") or self.serializer or app.conf.task_serializer
        offloader = ArgumentOffloader(
            app.tasks, enabled=serializer == "json" and not app.conf.task_always_eager
        )
        own = offloader.arguments(self, args or (), kwargs or {}, options.pop(MARK, ()))
        link = offloader.signatures(link)
        for name in LINKED:
            if options.get(name):
                options[name] = offloader.signatures(options[name])
        offloader.offload(due_in_seconds(options.get("countdown"), options.get("eta")))
        headers = {
            name: value for name, value in (options.pop("headers", None) or {}).items() if name != MARK
        }
        if own.marked:
            headers.update({MARK: own.marked, PAYLOAD_FORM_HEADER: PAYLOAD_FORM})
        if headers:
            options["headers"] = headers
        return super().apply_async(
            own.args, own.kwargs, task_id, producer, link, link_error, shadow, **options
        )

    def signature_from_request(
        self, request: Any = None, args: Any = None, kwargs: Any = None, queue: Any = None, **options: Any
    ) -> Any:
        """Return the signature of a retry, in which references stay references."""
        marked = _marked(self.request if request is None else request)
        if still := [place for place in marked if (args if isinstance(place, int) else kwargs) is None]:
            options[MARK] = still
        return super().signature_from_request(request, args, kwargs, queue, **options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        request = self.request
        if not is_workers_call(request):
            return super().__call__(*args, **kwargs)
        if marked := _marked(request):
            try:
                args, kwargs = self._resolved(args, kwargs, marked)
            except PayloadStoreUnavailableError as error:
                pause = min(2**request.retries, MAX_PAUSE_SECONDS)
                raise self.retry(exc=error, countdown=pause) from error
        return self.run(*args, **kwargs)

    def _resolved(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], marked: Sequence[Place]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        positional, named = list(args), dict(kwargs)
        store = payload_store()
        for place in marked:
            container: Any = positional if isinstance(place, int) else named
            try:
                reference = Reference.from_json(container[place])
            except (LookupError, TypeError):
                raise InvalidMessageError(
                    f"The message has no argument {place!r} to be a reference."
                ) from None
            container[place] = store.get(reference)
        return tuple(positional), named

    def name_of(self, place: Place, count: int) -> str | None:
        """Return the name of an argument's parameter.

        :param place: the argument's name, or its position from the end of `count` positional ones
        """
        if isinstance(place, str):
            return place
        position = count + place
        return self._names[position] if position < len(self._names) else None

    @cached_property
    def _names(self) -> list[str]:
        positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        parameters = inspect.signature(self.run).parameters.values()
        return [parameter.name for parameter in parameters if parameter.kind in positional]

    def may_offload(self, name: str | None) -> bool:
        """Return True if an argument may travel as a reference."""
        if isinstance(self.inline_arguments, bool):
            return not self.inline_arguments
        return name not in self.inline_arguments


def _marked(request: Any) -> Sequence[Place]:
    found = (request.headers or {}).get(MARK)
    return found if isinstance(found, list) else ()
