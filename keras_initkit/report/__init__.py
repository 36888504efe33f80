"""What was measured: rows, reports, files and renderings."""
