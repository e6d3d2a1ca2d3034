"""The report of a scale: tables, figures and pages made of results alone. Imports no torch."""
