"""Using edits: apply, combine, render, calibrate, record as recipes, bake into checkpoints."""
