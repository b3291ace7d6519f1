"""privfl.dp"""
