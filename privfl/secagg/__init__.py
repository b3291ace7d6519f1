"""privfl.secagg"""
