"""Movies and their annotations, as they lie on disk, and the simulator."""
