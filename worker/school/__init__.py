"""Sample app of syncable models: a school's units, learners, lessons, attempts and feedback."""
