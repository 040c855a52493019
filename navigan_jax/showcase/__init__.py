"""Pictures of directions from plain arrays: a sheet, a spectrum, a page with sliders, a film."""
