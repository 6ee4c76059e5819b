"""Reserved: the SDK, named as users import it; knows nothing of the rest."""
