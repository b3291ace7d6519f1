"""All statistics; importing this package fills the registry."""
