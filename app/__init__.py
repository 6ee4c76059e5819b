"""The application: its words, its rules, its doors, its faces."""
