"""Published networks that give images features, each behind the preprocessing that the literature's scores are defined with."""
