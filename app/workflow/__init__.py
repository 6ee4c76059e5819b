"""PURE: what is decided; one module per leg of the journey."""
