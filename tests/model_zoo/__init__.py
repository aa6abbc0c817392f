"""An app with one syncable model of each kind that Morango allows, for what the sample school lacks."""
