"""From rows and stored arrays to tables, figures, claims and pages. No torch."""
