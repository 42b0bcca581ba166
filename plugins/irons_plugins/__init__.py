"""The built-in plugins of irons: each package below is one, registered by the same door as any other."""
