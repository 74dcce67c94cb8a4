"""The output of a study: tables, figures, report, dashboard."""
