"""privfl.learn"""
