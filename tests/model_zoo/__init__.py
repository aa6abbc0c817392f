"""App with one syncable model of each kind that Morango allows and the sample school lacks."""
