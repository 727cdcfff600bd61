"""Paisa, an imaginary broker, for orderwire."""
