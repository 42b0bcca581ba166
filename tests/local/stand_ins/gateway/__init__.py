"""A stand-in for the gateway: it says what it was asked for, and notes what it hears."""
