"""An app for workers under test: the sample school's learners do as their user names say."""
