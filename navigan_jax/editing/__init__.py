"""Using edits: applying and combining them, images along shifts, comparable shift scales."""
