"""privfl.runtime"""
