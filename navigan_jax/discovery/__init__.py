"""Discovery: directions trained together with a reconstructor that has to tell them apart."""
