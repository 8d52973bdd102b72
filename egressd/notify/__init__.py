"""How people and other programs are told."""
