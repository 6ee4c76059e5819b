"""ExperimentLaunched → tasks and edges."""
