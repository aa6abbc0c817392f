"""Every mutation there is."""

from __future__ import annotations

from tests.mutations import deviations, faults, runs, verdicts, writing
from tests.mutations.mutation import Mutation

CATALOGUE: tuple[Mutation, ...] = (
    *deviations.MUTATIONS,
    *verdicts.MUTATIONS,
    *writing.MUTATIONS,
    *runs.MUTATIONS,
    *faults.MUTATIONS,
)
