"""What was asked and answered when: as JSON lines, as a page, and for whatever else takes it."""
