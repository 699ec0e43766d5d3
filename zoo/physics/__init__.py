"""Four-momenta: Lorentz transformations and collider coordinates."""
