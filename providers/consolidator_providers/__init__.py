"""Models and stores that the engine can use: one module for each vendor, imported when it is used."""
