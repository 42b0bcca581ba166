"""The parts of `irons_local.images.catalog`: reading archives, unpacking, preparing, building, packing."""
