"""The models of the library, for settings: those are read before there are models."""

LIBRARY = [
    f"library.{name}"
    for name in (
        *("Shelf", "Author", "Tag", "Book", "Review", "Hen", "Egg", "Place", "Branch", "Annex"),
        *("Local", "Careless", "Basket", "Card", "Stamp"),
    )
]
