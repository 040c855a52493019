"""Discovery: directions trained with a reconstructor that has to tell them apart."""
