"""Receivers that write other rows."""

from __future__ import annotations

from typing import Any

from django.db.models.signals import post_delete, post_save, pre_delete, pre_save
from django.dispatch import Signal, receiver

from tests.side_effects.deeds import carry_out
from tests.side_effects.models import Echo, Item, Order, Part, Seat, Slip

HEARD: dict[Signal, str] = {pre_save: "pre_save", post_save: "post_save", post_delete: "post_delete"}


@receiver(list(HEARD), sender=Item)
def hear(signal: Signal, instance: Item, raw: bool = False, **kwargs: Any) -> None:
    """Count, in a row that is dirty then, each signal about an item that isn't muted."""
    if raw:  # a fixture of a test
        return
    echo, _ = Echo.objects.get_or_create(name=f"{HEARD[signal]} {instance.name}")
    echo.times += 1
    echo.save()


@receiver(pre_delete, sender=Item)
def take_the_next_along(instance: Item, **kwargs: Any) -> None:
    if instance.next_name:
        for item in Item.objects.filter(name=instance.next_name):
            item.delete()


@receiver(pre_delete, sender=Part)
def part(instance: Part, **kwargs: Any) -> None:
    if instance.deed:
        carry_out(instance.deed, instance.target)


@receiver(pre_delete, sender=Slip)
@receiver(pre_delete, sender=Order)
def last_words(instance: Slip | Order, **kwargs: Any) -> None:
    instance.reach("pre_delete")


@receiver(pre_delete, sender=Seat)
def leave(instance: Seat, **kwargs: Any) -> None:
    others = Seat.objects.filter(course=instance.course).exclude(pk=instance.pk)
    if not instance.team:
        others.filter(person=instance.person).delete()
    if not others.exists():
        Item.objects.filter(name=instance.course).delete()
