"""What a study shows: tables, figures, report, dashboard."""
