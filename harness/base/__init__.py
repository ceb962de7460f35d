"""Words and tools that know no stage: errors, files, processes, versions."""
