"""privfl.budget"""
