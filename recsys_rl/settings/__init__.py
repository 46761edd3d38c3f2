"""Settings: ranges and texts of fields, all settings of one run, the record of a name."""
