"""Arriving records and their order: the cases of both made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.kolibri.breakage import BROKEN, NOT_UNIQUE, POISON, Breakage, copied, deleted, setting, truncated
from tests.kolibri.records import Recording, live, read, values, with_dependants


@dataclass
class Arrivals:
    """Recordings that arrive one after the other, each deserialized before the next one comes."""

    recordings: list[Recording]
    poison: Mapping[str, set[str]] = field(default_factory=dict)
    """Groups of records of the last recording, by name, each of which aborts Morango's function alone;
    without all of them it goes through."""
    prefixes: Sequence[str] = ()
    """Partitions that the sync is limited to; every record of the recordings is in one of them."""


@dataclass(frozen=True)
class Scenario:
    """One case, in several row orders."""

    name: str
    about: str
    orders: Sequence[int]
    """Seeds of the row orders to try; 0 is the recorded order."""
    build: Callable[[], Arrivals]

    def in_order(self, seed: int) -> Arrivals:
        """Build the arrivals anew, the Store rows in the order of `seed`."""
        arrivals = self.build()
        for recording in arrivals.recordings:
            recording.shuffle(seed)
        return arrivals


def small() -> Arrivals:
    """One device's data."""
    return Arrivals([read("small")])


def twodevice() -> Arrivals:
    """Return a real sync of two devices, with merge conflicts."""
    return Arrivals([read("twodevice")])


def two_steps() -> Arrivals:
    """Return the second recording as updates of the first one's records."""
    return Arrivals([read("small"), read("twodevice")])


def single_user() -> Arrivals:
    """Return a sync of one learner's data, with Kolibri's filter for it."""
    recording = read("small")
    user = live(recording.store, "membership")[0]
    dataset_id, user_id = values(user)["dataset_id"], values(user)["user_id"]
    prefixes = [
        f"{dataset_id}:user-rw:{user_id}",
        f"{dataset_id}:allusers-ro",
        f"{dataset_id}:user-ro:{user_id}",
    ]
    recording.keep({row["id"] for row in recording.store if row["partition"].startswith(tuple(prefixes))})
    return Arrivals([recording], prefixes=prefixes)


def nested_saves() -> Arrivals:
    """Coaches whose own Role.save() clears their picture password, and makes another Role that is missing."""
    recording = read("small")
    roles = [values(role) for role in live(recording.store, "role")]
    for row in recording.store:
        if row["id"] in {role["user_id"] for role in roles if role["kind"] == "coach"}:
            setting(picture_password=row["id"][:4])(row)
    # Who has yet another role at the facility gets one made or not, by the order of rows.
    made = next(
        role
        for role in roles
        if role["kind"] == "classroom assignable coach"
        and not any(
            other["user_id"] == role["user_id"]
            and other["collection_id"] == role["collection_id"]
            and other["id"] != role["id"]
            for other in roles
        )
    )
    recording.keep({row["id"] for row in recording.store} - {made["id"]})
    return Arrivals([recording])


def broken() -> Arrivals:
    """Broken records among good ones."""
    return Arrivals([_broken("small", BROKEN)])


def broken_updates() -> Arrivals:
    """Broken records that arrive as updates of good ones."""
    return Arrivals([read("small"), _broken("twodevice", [*BROKEN, NOT_UNIQUE])])


def poison() -> Arrivals:
    """Return records that abort Morango's function."""
    recording = read("small")
    groups = {breakage.about: {breakage.apply(recording.store)} for breakage in POISON}
    # Each group is tried alone, so leave out what takes time and nothing here refers to.
    logs = {row["id"] for row in live(recording.store, "attemptlog")[50:]}
    left_out = {"attendancerecord", "bookmark", "examattemptlog", "individualsyncablelesson"}
    recording.keep({row["id"] for row in recording.store if row["model_name"] not in left_out} - logs)
    return Arrivals([recording], groups)


def unsaved_user() -> Arrivals:
    """Return a user who can't be saved, and a record whose own code reads that user."""
    arrivals, _ = _unsaved_user("usersessionlog")
    return arrivals


def unsaved_reference() -> Arrivals:
    """Return a user who can't be saved, and a record that only refers to that user."""
    arrivals, ids = _unsaved_user("attendancerecord")
    arrivals.poison = {"a reference to a user who can't be saved": ids}
    return arrivals


def _unsaved_user(model_name: str) -> tuple[Arrivals, set[str]]:
    before, after = read("small"), Recording()
    learner_id = values(live(before.store, "membership")[0])["user_id"]
    first = next(row for row in before.store if row["id"] == learner_id)
    setting(picture_password="1.2.3")(first)
    second = copied(first, "another user with the same picture password")
    reference = copied(live(before.store, model_name)[0], "what they did")
    setting(user_id=second["id"])(reference)
    after.store = [second, reference]
    return Arrivals([before, after]), {second["id"], reference["id"]}


def broken_root() -> Arrivals:
    """Return a facility that can't be read, and so everything else."""
    recording = read("small")
    truncated(live(recording.store, "facility")[0])
    logs = live(recording.store, "contentsessionlog")
    anonymous = {log["id"] for log in logs if not values(log)["user_id"]}
    return Arrivals([recording], {"logs of nobody, whose own code wants a facility": anonymous})


def broken_parent() -> Arrivals:
    """Return a class that can't be read, and everything in it."""
    recording = read("small")
    classroom = live(recording.store, "classroom")[1]
    inside = with_dependants(recording.store, {classroom["id"]})
    truncated(classroom)
    return Arrivals([recording], {"a class that can't be read": inside})


def deleted_grandparent() -> Arrivals:
    """Return a deleted record with live children, which have live children."""
    recording = read("small")
    logs = live(recording.store, "masterylog")
    summary_id = values(logs[0])["summarylog_id"]
    children = {log["id"] for log in logs if values(log)["summarylog_id"] == summary_id}
    grandchildren = with_dependants(recording.store, children) - children
    deleted(next(row for row in recording.store if row["id"] == summary_id))
    return Arrivals([recording], {"grandchildren of a deleted record": grandchildren})


def left_class() -> Arrivals:
    """Learners who have left their classes: Kolibri's receiver takes them out of the groups there as well."""
    before, after = read("small"), Recording()
    kinds = ("learnergroup", "adhoclearnersgroup")
    class_of = {row["id"]: values(row)["parent_id"] for kind in kinds for row in live(before.store, kind)}
    memberships = [(row, values(row)) for row in live(before.store, "membership")]
    in_groups = {(of["user_id"], class_of.get(of["collection_id"])) for _, of in memberships}
    after.store = [dict(row) for row, of in memberships if (of["user_id"], of["collection_id"]) in in_groups]
    for row in after.store:
        deleted(row)
    return Arrivals([before, after])


CREATORS = {
    "lesson": "created_by_id",
    "attendancesession": "created_by_id",
    "lessonassignment": "assigned_by_id",
    "examassignment": "assigned_by_id",
}
"""Keys of the users who made records, by their models."""


def other_facility() -> Arrivals:
    """Return two facilities' data, and records of the one that refer to the other, or to nobody."""
    recording = read("small")
    other = _facility_beside(recording)
    for model_name, creator in CREATORS.items():
        original = live(recording.store, model_name)[0]
        variants: dict[str, dict[str, str | None]] = {
            "made by nobody": {creator: None},
            "made by another facility's user": {creator: other["facilityuser"]},
            "for another facility": {"collection_id": other["facility"]},
            "of another facility's dataset": {"dataset_id": other["facilitydataset"]},
            "without a dataset": {"dataset_id": None},
            "whole": {},
        }
        for about, changes in variants.items():
            row = copied(original, f"{model_name} {about}")
            setting(**changes)(row)
            recording.store.append(row)
    return Arrivals([recording])


def _facility_beside(recording: Recording) -> dict[str, str]:
    """Add a second facility with one user, and return the ids of these records by model."""
    rows = {
        model_name: live(recording.store, model_name)[0]
        for model_name in ("facilitydataset", "facility", "facilityuser")
    }
    copies = {model_name: copied(row, f"the other {model_name}") for model_name, row in rows.items()}
    ids = {model_name: str(row["id"]) for model_name, row in copies.items()}
    dataset_id = rows["facilitydataset"]["id"]
    for row in copies.values():
        row["partition"] = row["partition"].replace(dataset_id, ids["facilitydataset"])
    setting(dataset_id=ids["facilitydataset"])(copies["facility"])
    setting(dataset_id=ids["facilitydataset"], facility_id=ids["facility"])(copies["facilityuser"])
    recording.store.extend(copies.values())
    return ids


def _broken(name: str, breakages: Sequence[Breakage]) -> Recording:
    recording = read(name)
    for breakage in breakages:
        breakage.apply(recording.store)
    return recording


def _scenario(build: Callable[[], Arrivals], *orders: int) -> Scenario:
    return Scenario(build.__name__.replace("_", "-"), build.__doc__ or "", orders, build)


SCENARIOS = (
    _scenario(small, 0, 1, 2),
    _scenario(twodevice, 0, 1),
    _scenario(two_steps, 0, 1),
    _scenario(single_user, 0, 1),
    _scenario(nested_saves, 0, 1),
    _scenario(broken, 0, 1),
    _scenario(broken_updates, 0, 1),
    _scenario(poison, 0),
    _scenario(unsaved_user, 0),
    _scenario(unsaved_reference, 0),
    _scenario(broken_root, 0),
    _scenario(broken_parent, 0),
    _scenario(deleted_grandparent, 0),
    _scenario(left_class, 0, 1),
    _scenario(other_facility, 0, 1),
)
