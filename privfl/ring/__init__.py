"""privfl.ring"""
