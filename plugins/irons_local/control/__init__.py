"""The control plane's parts: what the API answers, what it writes down, and whom it asks to do the work."""
