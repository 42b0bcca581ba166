"""The parts of `irons_plugins.local.image`: reading archives, unpacking, preparing, building, packing."""
