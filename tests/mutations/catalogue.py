"""Every mutation there is."""

from __future__ import annotations

from tests.mutations import deviations, faults, names, runs, serialize, verdicts, waiting, writing
from tests.mutations.mutation import Mutation

CATALOGUE: tuple[Mutation, ...] = (
    *deviations.MUTATIONS,
    *verdicts.MUTATIONS,
    *writing.MUTATIONS,
    *serialize.MUTATIONS,
    *runs.MUTATIONS,
    *faults.MUTATIONS,
    *waiting.MUTATIONS,
    *names.MUTATIONS,
)
