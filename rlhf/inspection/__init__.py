"""What is in the data, as a model would learn from it: `measure` counts, `text` and `page` show."""
