"""Pictures and pages from plain arrays: sheets, spectra, galleries, figures, videos."""
