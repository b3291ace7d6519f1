"""privfl.cli"""
