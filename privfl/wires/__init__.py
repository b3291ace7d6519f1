"""privfl.wires"""
