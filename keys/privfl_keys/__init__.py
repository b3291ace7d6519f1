"""Who is who, and what is sealed to whom."""
